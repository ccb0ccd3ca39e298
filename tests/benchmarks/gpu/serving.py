"""The real service under load on a device, beside a tutorial's application, and without a GPU."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable

import httpx2
import numpy as np

from service.imaging import InputSpec, read_image
from service.machine.sizing import count_workers
from service.settings import Device, Settings
from tests import golden
from tests.benchmarks.bench import BATCH_FILES, TENSOR_IMAGES, app, photo, png_requests, request
from tests.benchmarks.gpu.machine import Report, memory_mib
from tests.benchmarks.gpu.sessions import measure_seconds, spread
from tests.benchmarks.pace import Request, closed_loop
from tests.e2e.server import ROOT, Server, serving, start
from tests.service.images import encode

SERVED = ROOT / "models" / "convnet-tf1" / "1"
CONNECTIONS = (1, 16, 64, 256)
CELL_SECONDS = 2.0
TENSOR_HEAD = {"Content-Type": "application/octet-stream", "X-Shape": f"{TENSOR_IMAGES},28,28"}
TAKE_ALL_MEMORY = """
import torch, time
held = []
for mib in (1024, 256, 64, 16, 4, 1):
    try:
        while True:
            held.append(torch.empty(mib * 2**20, dtype=torch.uint8, device="cuda"))
    except torch.cuda.OutOfMemoryError:
        pass
print(sum(each.numel() for each in held) // 2**20, "MiB", flush=True)
time.sleep(60)
"""


def load_service(device: Device) -> Report:
    """Send the service images one by one, forms and tensors."""
    workers = count_workers(Settings(device=device))
    with serving(device=device, models=SERVED, workers=workers) as server:
        health = server.get("/health").json()
        report: Report = {"workers": workers, "device": health["models"][0]["device"]}
        report |= measure_cells(port_of(server)) | measure_batches(server)
        return report | {"memory_mib": memory_mib(device)}


def load_tutorial(device: Device) -> Report:
    """Send the application of the tutorials the same images, on the same device."""
    providers = "CUDAExecutionProvider,CPUExecutionProvider" if device == "cuda" else ""
    with app("tutorial", MODEL=str(SERVED / "model.onnx"), PROVIDERS=providers) as port:
        return measure_cells(port)


def measure_ceilings() -> Report:
    """Measure HTTP without any work, and decoding without HTTP."""
    with app("ceiling") as port:
        constant = [Request(each.message, b'"class_name"') for each in works()["PNG"]]
        http = {
            count: round(asyncio.run(closed_loop(port, constant, count, 1.0)).rate, 1)
            for count in CONNECTIONS
        }
    png, jpeg = encode(golden.images()[0]), photo(golden.images()[0], np.random.default_rng(0))
    return {
        "HTTP alone, answers per second": http,
        "PNG decoded": spread(lambda: read_image(png, InputSpec("item-on-black", (28, 28)), 10**8)),
        "JPEG decoded": spread(
            lambda: read_image(jpeg, InputSpec("item-on-black", (28, 28)), 10**8)
        ),
    }


def hide_gpu() -> Report:
    """Start the service where no GPU is visible: ``cuda`` must exit, ``auto`` must say ``cpu``."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    refused = start(subprocess.DEVNULL, device="cuda", port=0, workers=1)
    report: Report = {"exit_code_with_cuda": refused.wait(timeout=60)}
    with serving(device="auto", models=SERVED) as server:
        report["health_with_auto"] = server.get("/health").json()
    return report


def take_memory(device: Device) -> Report:
    """Ask for answers while another process holds all of the GPU's memory, and after it ended."""
    if device != "cuda":
        return {"skipped": "there is no GPU whose memory could be taken"}
    with serving(device="cuda", models=SERVED, check_interval_seconds=1) as server:
        command = [sys.executable, "-c", TAKE_ALL_MEMORY]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            report: Report = {"taken": other.stdout.readline().strip()}
            report["statuses"] = [post_tensor(server) for _ in range(20)]
            report["health"] = ask_health(server)
            other.kill()
        time.sleep(3)
        after = {"health": ask_health(server), "exit_code": server.process.poll()}
        return report | {"after": after, "log": server.read_log().splitlines()[-20:]}


def measure_cells(port: int) -> Report:
    """Measure each kind of image at each number of connections."""
    return {
        f"{name}, {count} connections": measure_cell(port, requests, count)
        for name, requests in works().items()
        for count in CONNECTIONS
    }


def measure_cell(port: int, requests: list[Request], connections: int) -> Report:
    """Measure one cell in a closed loop."""
    result = asyncio.run(closed_loop(port, requests, connections, CELL_SECONDS))
    return {
        "answers_per_second": round(result.rate, 1),
        "p50_ms": round(result.percentile_ms(50), 2),
        "p99_ms": round(result.percentile_ms(99), 2),
        "statuses": dict(result.statuses),
        "wrong": result.wrong,
    }


def measure_batches(server: Server) -> Report:
    """Time a form of many files and a tensor, five times each, in milliseconds."""
    url = server.url + "/predict/batch"
    files = [("file", encode(image)) for image in golden.images()[:BATCH_FILES]]
    with httpx2.Client(timeout=60) as client:
        calls: dict[str, Callable[[], object]] = {
            f"form of {BATCH_FILES}": lambda: client.post(url, files=files).raise_for_status(),
            f"tensor of {TENSOR_IMAGES}": lambda: client.post(
                url, content=tensor(), headers=TENSOR_HEAD
            ).raise_for_status(),
        }
        return {
            f"{name}, ms": [round(1000 * measure_seconds(call), 2) for _ in range(5)]
            for name, call in calls.items()
        }


def works() -> dict[str, list[Request]]:
    """Make the requests of one image each."""
    generator = np.random.default_rng(0)
    photos = [photo(image, generator) for image in golden.images()[:24]]
    jpegs = [request("/predict", each, "image/jpeg", b'"class_name":') for each in photos]
    return {"PNG": png_requests(SERVED), "JPEG": jpegs}


def tensor() -> bytes:
    """Repeat the golden images to a tensor."""
    return np.resize(golden.images(), (TENSOR_IMAGES, 28, 28)).tobytes()


def post_tensor(server: Server) -> int | str:
    """Send a tensor; return the status, or why there is none."""
    url = server.url + "/predict/batch"
    try:
        return httpx2.post(url, content=tensor(), headers=TENSOR_HEAD, timeout=30).status_code
    except httpx2.TransportError as error:
        return repr(error)


def ask_health(server: Server) -> object:
    """Return what /health says, or why it says nothing: the process may have exited."""
    try:
        return server.get("/health").json()
    except httpx2.TransportError as error:
        return repr(error)


def port_of(server: Server) -> int:
    """Return the port that a server listens on."""
    return int(server.url.rsplit(":", 1)[1])
