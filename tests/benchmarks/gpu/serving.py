"""The real service under load on a device, beside a tutorial's application, and without a GPU."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import httpx2
import numpy as np

from service.bundle import newest_version
from service.imaging import InputSpec, read_image
from service.settings import Device
from tests import golden
from tests.benchmarks.bench import BATCH_FILES, TENSOR_IMAGES, app, photo, png_requests, request
from tests.benchmarks.gpu.machine import Report, memory_mib
from tests.benchmarks.gpu.sessions import measure_seconds, spread
from tests.benchmarks.pace import Request, Result, closed_loop, port_of
from tests.e2e.server import ROOT, Server, serving, start
from tests.service.images import encode

SERVED = ROOT / "models" / "convnet-tf1" / "1"
PHOTOS = newest_version(ROOT / "models" / "garments")
CONNECTIONS = (1, 16, 64, 256)
CELL_SECONDS = 1.5
GENERATORS = 4  # processes that send requests
Cells = Iterator[tuple[str, Report]]
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


def load_service(device: Device, model: Path, worker_counts: Iterable[int]) -> Cells:
    """Send the service single images, and batches to a model of 28 x 28 pixels."""
    for workers in worker_counts:
        with serving(device=device, models=model, workers=workers) as server:
            report: Report = {"device": server.get("/health").json()["models"][0]["device"]}
            report |= measure_cells(port_of(server), model)
            if model == SERVED:
                report |= measure_batches(server)
            yield f"{workers} workers", report | {"memory_mib": memory_mib(device)}


def load_tutorial(device: Device) -> Report:
    """Send the application of the tutorials the same images, on the same device."""
    providers = "CUDAExecutionProvider,CPUExecutionProvider" if device == "cuda" else ""
    with app("tutorial", MODEL=str(SERVED / "model.onnx"), PROVIDERS=providers) as port:
        return measure_cells(port, SERVED)


def measure_ceilings() -> Report:
    """Measure HTTP without any work, and decoding without HTTP."""
    with app("ceiling") as port:
        constant = [Request(each.message, b'"class_name"') for each in png_requests(SERVED)]
        http = {count: measure_cell(port, constant, count) for count in CONNECTIONS}
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
    with serving(device="cuda", models=SERVED, workers=2, check_interval_seconds=1) as server:
        command = [sys.executable, "-c", TAKE_ALL_MEMORY]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            report: Report = {"taken": other.stdout.readline().strip()}
            report["statuses"] = [post_tensor(server) for _ in range(5)]
            report["health"] = ask_health(server)
            other.kill()
        time.sleep(5)  # the model is loaded again
        report["statuses after"] = [post_tensor(server) for _ in range(5)]
        after = {"health": ask_health(server), "exit_code": server.process.poll()}
        lines = server.read_log().splitlines()[-40:]
        return report | {"after": after, "log": [line[:200] for line in lines]}


def measure_cells(port: int, model: Path) -> Report:
    """Measure each kind of image at each number of connections."""
    return {
        f"{name}, {count} connections": measure_cell(port, requests, count)
        for name, requests in works(model).items()
        for count in CONNECTIONS
    }


def measure_cell(port: int, requests: list[Request], connections: int) -> Report:
    """Measure one cell in a closed loop; several processes share the connections."""
    processes = min(connections, GENERATORS)
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        shares = [connections // processes] * processes
        results = list(pool.map(partial(_load, port, requests), shares))
    whole = Result(
        seconds=[each for result in results for each in result.seconds],
        statuses=sum((result.statuses for result in results), Counter()),
        wrong=sum(result.wrong for result in results),
    )
    return {
        "answers_per_second": round(sum(result.rate for result in results), 1),
        "p50_ms": round(whole.percentile_ms(50), 2),
        "p99_ms": round(whole.percentile_ms(99), 2),
        "statuses": dict(whole.statuses),
        "wrong": whole.wrong,
    }


def _load(port: int, requests: list[Request], connections: int) -> Result:
    return asyncio.run(closed_loop(port, requests, connections, CELL_SECONDS))


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


def works(model: Path) -> dict[str, list[Request]]:
    """Make the requests of one image each; only a model of 28 x 28 pixels gets small ones."""
    generator = np.random.default_rng(0)
    photos = [photo(image, generator) for image in golden.images()[:24]]
    jpegs = [request("/predict", each, "image/jpeg", b'"class_name":') for each in photos]
    small = {"PNG": png_requests(model)} if model == SERVED else {}
    return small | {"JPEG": jpegs}


def tensor() -> bytes:
    """Repeat the golden images to a tensor."""
    return np.resize(golden.images(), (TENSOR_IMAGES, 28, 28)).tobytes()


def post_tensor(server: Server) -> int | str:
    """Send a tensor; return the status, or why there is none."""
    url = server.url + "/predict/batch"
    try:
        return httpx2.post(url, content=tensor(), headers=TENSOR_HEAD, timeout=5).status_code
    except httpx2.TransportError as error:
        return repr(error)


def ask_health(server: Server) -> object:
    """Return what /health says, or why it says nothing: the process may have exited."""
    try:
        return server.get("/health").json()
    except httpx2.TransportError as error:
        return repr(error)
