"""Measure the service on a GPU within a few minutes: ``python -m tests.benchmarks.gpu --output FOLDER``.

Each step runs in a process of its own with a time limit, and writes ``FOLDER/STEP.json``, so that a
step that crashes or hangs loses no other step's figures. ``--device cpu`` runs the same steps on the
CPU: only the device differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
from numpy.typing import NDArray

from service.bundle import Bundle, read_bundle
from service.imaging import read_image
from service.inference.classifier import Classifier
from service.machine import nvidia
from tests import golden
from tests.benchmarks.bench import BATCH_FILES, TENSOR_IMAGES, app, photo, png_requests, request
from tests.benchmarks.pace import Request, closed_loop
from tests.e2e.server import ROOT, Server, serving, start
from tests.service.images import encode

BUNDLES = sorted(path.parent for path in (ROOT / "models").glob("*/*/manifest.json"))
SERVED = ROOT / "models" / "convnet-tf1" / "1"
BATCH_SIZES = tuple(2**power for power in range(11))  # 1 to 1,024
CONNECTIONS = (1, 16, 64, 256)
CELL_SECONDS = 2.0
RUNS = 30  # timed runs of a session for each batch size
CUDA_VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "no TF32": {"use_tf32": "0"},
    "NHWC": {"prefer_nhwc": "1"},
    "search heuristic": {"cudnn_conv_algo_search": "HEURISTIC"},
    "search default": {"cudnn_conv_algo_search": "DEFAULT"},
}
Images = NDArray[np.uint8]
Report = dict[str, Any]


# ---- what each step measures ----------------------------------------------------------------------


def machine(device: str, data: Path | None) -> Report:
    """Describe the machine: GPU, driver, libraries, cores."""
    del data
    report: Report = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "onnxruntime": onnxruntime.__version__,
        "available_providers": onnxruntime.get_available_providers(),
        "built_for_cuda": nvidia.wanted_cuda(),
        "gpu": nvidia_smi("name,memory.total,driver_version"),
    }
    if device == "cuda":
        report["driver"] = str(nvidia.find_driver())
    return report


def bundles(device: str, data: Path | None) -> Report:
    """Load each shipped bundle: its providers, its nodes on CUDA, its times and its answers."""
    return {f"{b.parent.name}/{b.name}": _load(read_bundle(b), device, data) for b in BUNDLES}


def _load(bundle: Bundle, device: str, data: Path | None) -> Report:
    started = time.perf_counter()
    classifier = Classifier(bundle, device)  # type: ignore[arg-type]
    loaded = time.perf_counter() - started
    session = open_session(bundle, device)
    report: Report = {
        "providers": classifier.providers,
        "load_and_self_test_seconds": loaded,
        "nodes": _nodes_by_provider(session),
        "first_runs_ms": [round(1000 * _time(session, golden.images()[:1]), 3) for _ in range(5)],
    }
    report |= {"parity": _parity(bundle, device, data), "memory_mib": memory_mib(device)}
    return report


def _nodes_by_provider(session: onnxruntime.InferenceSession) -> dict[str, list[str]]:
    graph = session.get_provider_graph_assignment_info()
    return {part.ep_name: [node.op_type for node in part.get_nodes()] for part in graph}


def _parity(bundle: Bundle, device: str, data: Path | None) -> Report:
    """Compare the device's answers with the CPU's, with and without TF32."""
    images = golden.images() if data is None else read_test_images(data)
    expected = run(open_session(bundle, "cpu"), images)
    report: Report = {"images": len(images)}
    for name in ("default", "no TF32") if device == "cuda" else ("default",):
        found = run(open_session(bundle, device, CUDA_VARIANTS[name]), images)
        report[name] = {
            "largest_difference": float(np.abs(found - expected).max()),
            "same_class": int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
        }
    if bundle.manifest.name == "resnet-8-photos":  # the golden answers are those of its Keras model
        found = run(open_session(bundle, device), golden.images())
        report["golden"] = float(np.abs(found - golden.probabilities()).max())
    return report


def sessions(device: str, data: Path | None) -> Report:
    """Time ``session.run`` at each batch size: default, IO binding, CUDA graphs, NHWC, searches."""
    del data
    report: Report = {}
    for folder in BUNDLES:
        bundle = read_bundle(folder)
        timed: Report = {}
        for name, options in (CUDA_VARIANTS if device == "cuda" else {"default": {}}).items():
            session = open_session(bundle, device, options)
            timed[name] = {size: _spread(_caller(session, size)) for size in BATCH_SIZES}
        timed["IO binding"] = {s: _spread(_bound(bundle, device, s, {})) for s in BATCH_SIZES}
        if device == "cuda":
            graphs = {"enable_cuda_graph": "1"}
            timed["CUDA graph"] = {
                s: _spread(_bound(bundle, device, s, graphs)) for s in BATCH_SIZES
            }
        report[f"{folder.parent.name}/{folder.name}"] = timed | {"memory_mib": memory_mib(device)}
    return report


def _caller(session: onnxruntime.InferenceSession, size: int) -> Callable[[], object]:
    batch = batch_of(size)
    return lambda: session.run(["probabilities"], {"image": batch})


def _bound(bundle: Bundle, device: str, size: int, options: dict[str, str]) -> Callable[[], object]:
    """Bind input and output to fixed memory of the device, as CUDA graphs need it."""
    session = open_session(bundle, device, options)
    batch, classes = batch_of(size), len(bundle.manifest.class_names)
    given = onnxruntime.OrtValue.ortvalue_from_numpy(batch, device, 0)
    taken = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
        (size, classes), np.float32, device, 0
    )
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", given)
    binding.bind_ortvalue_output("probabilities", taken)

    def call() -> object:
        given.update_inplace(batch)
        session.run_with_iobinding(binding)
        return taken.numpy()

    return call


def _spread(call: Callable[[], object]) -> Report:
    for _ in range(3):
        call()
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    p50, p99 = np.percentile(seconds, (50, 99)) * 1000
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def service(device: str, data: Path | None) -> Report:
    """Load the real service: images one by one at each number of connections, forms, tensors."""
    del data
    return asyncio.run(_load_service(device))


def service_on_cpu(device: str, data: Path | None) -> Report:
    """Load the same service on this machine's CPU, with its default number of workers."""
    del device, data
    return asyncio.run(_load_service("cpu"))


async def _load_service(device: str) -> Report:
    with serving(device=device, model=SERVED, workers=None or _workers(device)) as server:
        health = server.get("/health").json()
        report: Report = {"device": health["device"], "providers": health["providers"]}
        report |= await _cells(_port(server))
        report |= _batches(server)
        report["memory_mib"] = memory_mib(device)
    return report


def _workers(device: str) -> int:
    return 1 if device == "cuda" else max(1, min(8, (os.cpu_count() or 1) // 2))


async def _cells(port: int) -> Report:
    report: Report = {}
    for name, requests in works().items():
        for connections in CONNECTIONS:
            result = await closed_loop(port, requests, connections, CELL_SECONDS)
            report[f"{name}, {connections} connections"] = {
                "answers_per_second": round(result.rate, 1),
                "p50_ms": round(result.percentile_ms(50), 2),
                "p99_ms": round(result.percentile_ms(99), 2),
                "statuses": dict(result.statuses),
                "wrong": result.wrong,
            }
    return report


def _batches(server: Server) -> Report:
    import httpx2  # here, so that a machine without it loses this step alone

    url, images = server.url + "/predict/batch", golden.images()
    tensor = np.resize(images, (TENSOR_IMAGES, 28, 28)).tobytes()
    head = {"Content-Type": "application/octet-stream", "X-Shape": f"{TENSOR_IMAGES},28,28"}
    files = [("file", encode(image)) for image in images[:BATCH_FILES]]
    with httpx2.Client(timeout=60) as client:
        form = _spread_of_5(lambda: client.post(url, files=files).raise_for_status())
        flat = _spread_of_5(
            lambda: client.post(url, content=tensor, headers=head).raise_for_status()
        )
    return {"form_of_100_ms": form, "tensor_of_1000_ms": flat}


def _spread_of_5(call: Callable[[], object]) -> list[float]:
    call()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        call()
        times.append(round(1000 * (time.perf_counter() - started), 2))
    return sorted(times)


def tutorial(device: str, data: Path | None) -> Report:
    """Load the application of the tutorials on the same device."""
    del data
    providers = "CUDAExecutionProvider,CPUExecutionProvider" if device == "cuda" else ""
    with app("tutorial", MODEL=str(SERVED / "model.onnx"), PROVIDERS=providers) as port:
        return asyncio.run(_cells(port))


def ceilings(device: str, data: Path | None) -> Report:
    """Measure the parts alone: HTTP without work, decoding without HTTP."""
    del data, device
    with app("ceiling") as port:
        constant = [Request(each.message, b'"class_name"') for each in works()["PNG"]]
        http = {
            connections: round(asyncio.run(closed_loop(port, constant, connections, 1.0)).rate, 1)
            for connections in CONNECTIONS
        }
    png, jpeg = encode(golden.images()[0]), photo(golden.images()[0], np.random.default_rng(0))
    decoding = {
        name: _spread(lambda upload=upload: read_image(upload, (28, 28), 10**8))  # type: ignore[misc]
        for name, upload in (("PNG", png), ("JPEG", jpeg))
    }
    return {"HTTP alone, answers per second": http, "decoding alone": decoding}


def doctor(device: str, data: Path | None) -> Report:
    """Ask the doctor."""
    del data
    command = [sys.executable, "-m", "service", "doctor"]
    environment = os.environ | {"SERVICE_DEVICE": device, "SERVICE_PORT": "0"}
    page = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return {"exit_code": page.returncode, "page": page.stdout.splitlines()}


def hidden(device: str, data: Path | None) -> Report:
    """Start the service where the GPU is hidden: ``cuda`` must exit, ``auto`` must say CPU."""
    del device, data
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    refused = start(subprocess.DEVNULL, device="cuda", port=0, workers=1)
    report: Report = {"exit_code_of_cuda": refused.wait(timeout=60)}
    with serving(device="auto", model=SERVED) as server:
        report["health_of_auto"] = server.get("/health").json()
    return report


def memory_taken(device: str, data: Path | None) -> Report:
    """Answer images while another process holds all of the GPU's memory."""
    del data
    if device != "cuda":
        return {"skipped": "there is no GPU whose memory could be taken"}
    with serving(device="cuda", model=SERVED, check_interval_seconds=1) as server:
        hog = subprocess.Popen([sys.executable, "-c", HOG], stdout=subprocess.PIPE, text=True)
        assert hog.stdout is not None
        taken = hog.stdout.readline().strip()
        form = {"content": np.resize(golden.images(), (1024, 28, 28)).tobytes()}
        statuses = [_post(server, form) for _ in range(20)]
        health = _health(server)
        hog.kill()
        hog.wait()
        time.sleep(3)
        after = {"health": _health(server), "exit_code": server.process.poll()}
        return {"taken": taken, "statuses": statuses, "health": health, "after": after}


HOG = """
import torch, sys, time
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


def _post(server: Server, form: dict[str, bytes]) -> int | str:
    import httpx2

    head = {"Content-Type": "application/octet-stream", "X-Shape": "1024,28,28"}
    try:
        return httpx2.post(
            server.url + "/predict/batch", headers=head, timeout=30, **form
        ).status_code  # type: ignore[arg-type]
    except httpx2.TransportError as error:
        return repr(error)


def _health(server: Server) -> object:
    try:
        return server.get("/health").json()
    except Exception as error:  # the process may have exited, which is an answer too
        return repr(error)


# ---- what the steps share -------------------------------------------------------------------------


def open_session(
    bundle: Bundle, device: str, options: dict[str, str] | None = None
) -> onnxruntime.InferenceSession:
    """Open a bundle's graph on ``device``, with options of the CUDA provider."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        onnxruntime.preload_dlls()
        providers.insert(0, ("CUDAExecutionProvider", options or {}))
    return onnxruntime.InferenceSession(bundle.model, settings, providers=providers)


def run(session: onnxruntime.InferenceSession, images: Images) -> NDArray[np.float32]:
    """Classify all images, 500 at a time; return float32 ``[N, classes]``."""
    starts = range(0, len(images), 500)
    return np.concatenate(
        [session.run(["probabilities"], {"image": images[at : at + 500]})[0] for at in starts]
    )


def _time(session: onnxruntime.InferenceSession, images: Images) -> float:
    started = time.perf_counter()
    session.run(["probabilities"], {"image": images})
    return time.perf_counter() - started


def batch_of(size: int) -> Images:
    """Repeat the golden images to a batch, uint8 ``[size, 28, 28]``."""
    return np.resize(golden.images(), (size, 28, 28))


def works() -> dict[str, list[Request]]:
    """Make the requests that are sent one by one."""
    generator = np.random.default_rng(0)
    photos = [photo(image, generator) for image in golden.images()[:24]]
    jpegs = [request("/predict", each, "image/jpeg", b'"class_name":') for each in photos]
    return {"PNG": png_requests(SERVED), "JPEG": jpegs}


def read_test_images(folder: Path) -> Images:
    """Read the 10,000 test images of Fashion-MNIST, uint8 ``[10000, 28, 28]``."""
    from training.sources.idx import IdxFolder

    return IdxFolder(folder).test().images


def memory_mib(device: str) -> float:
    """Return the memory in use: the GPU's, or this process's own on the CPU."""
    if device == "cuda":
        return float(nvidia_smi("memory.used").split()[0])
    return round(psutil.Process().memory_info().rss / 2**20, 1)


def nvidia_smi(query: str) -> str:
    """Ask the driver's tool; an empty text where there is none."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _port(server: Server) -> int:
    return int(server.url.rsplit(":", 1)[1])


# ---- the run --------------------------------------------------------------------------------------

# In this order: what matters most comes first, for the minutes may not suffice for all. Seconds are limits.
STEPS: dict[str, tuple[Callable[[str, Path | None], Report], float]] = {
    "machine": (machine, 20),
    "bundles": (bundles, 60),
    "service": (service, 60),
    "sessions": (sessions, 90),
    "tutorial": (tutorial, 45),
    "hidden": (hidden, 30),
    "memory_taken": (memory_taken, 60),
    "service_on_cpu": (service_on_cpu, 45),
    "ceilings": (ceilings, 30),
    "doctor": (doctor, 20),
}


def measure(name: str, arguments: argparse.Namespace, seconds: float) -> str:
    """Run one step in a process of its own; return how it ended."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--step", name]
    command += ["--device", arguments.device, "--output", str(arguments.output)]
    command += ["--data", str(arguments.data)] if arguments.data else []
    started = time.monotonic()
    try:
        with (arguments.output / f"{name}.log").open("w") as log:
            code = subprocess.run(
                command, cwd=ROOT, stdout=log, stderr=log, timeout=seconds, check=False
            ).returncode
    except subprocess.TimeoutExpired:
        return f"cut off after {seconds:.0f} s"
    took = f"{time.monotonic() - started:.1f} s"
    return took if code == 0 else f"failed with exit code {code} after {took}; see {name}.log"


def main() -> None:
    """Run the steps in turn until the minutes are over, and note after each what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--minutes", type=float, default=4, help="limit for all steps together")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--step", choices=STEPS, help="run this step alone, in this process")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.step:
        report = STEPS[arguments.step][0](arguments.device, arguments.data)
        text = json.dumps(report, indent=1, default=str)
        (arguments.output / f"{arguments.step}.json").write_text(text)
        return
    end = time.monotonic() + 60 * arguments.minutes
    ended: dict[str, str] = {}
    for name, (_, limit) in STEPS.items():
        left = end - time.monotonic()
        ended[name] = measure(name, arguments, min(limit, left)) if left > 5 else "not begun"
        (arguments.output / "steps.json").write_text(json.dumps(ended, indent=1))
        print(f"{name}: {ended[name]}", flush=True)


if __name__ == "__main__":
    main()
