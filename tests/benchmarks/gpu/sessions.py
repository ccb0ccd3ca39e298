"""Bundles on a device without HTTP: providers, parity with the CPU, and times by batch size."""

from __future__ import annotations

import gzip
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bundle import Bundle, newest_version, read_bundle
from service.imaging import InputSpec, read_image
from service.inference.classifier import Classifier
from service.inference.session import CUDA_OPTIONS
from service.settings import Device
from tests import golden
from tests.benchmarks.gpu.machine import Report, memory_mib
from tests.e2e.server import ROOT
from tests.service.images import encode

NAMES = ("resnet-8", "garments", "convnet-tf1", "resnet-8-tiny")  # the most used first
BUNDLES = [newest_version(ROOT / "models" / name) for name in NAMES]
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
BOUND_SIZES = (1, 32, 256)  # each needs a session of its own
MAX_RUNS, MAX_SECONDS = 30, 0.3  # of one time
PROVIDER_OPTIONS: dict[str, dict[str, str]] = {
    "no TF32": CUDA_OPTIONS,
    "TF32": {},
    "NHWC": CUDA_OPTIONS | {"prefer_nhwc": "1"},
    "heuristic search": CUDA_OPTIONS | {"cudnn_conv_algo_search": "HEURISTIC"},
    "default search": CUDA_OPTIONS | {"cudnn_conv_algo_search": "DEFAULT"},
}
"""Options of the CUDA provider by name; the service's come first.

The provider's own search is the exhaustive one. It searches anew when the size of a batch changes.
"""

Images = NDArray[np.uint8]
Bundles = Iterator[tuple[str, Report]]


def load_bundles(device: Device, data: Path | None) -> Bundles:
    """Load each shipped bundle as the service does; compare its answers with the CPU's.

    The images are the 10,000 test images in ``data``. Without it, and for bundles with RGB inputs,
    which are slow on a CPU, they are the golden set.
    """
    for folder in BUNDLES:
        bundle = read_bundle(folder)
        images = golden_inputs(bundle)
        if data is not None and images.ndim == 3:
            images = read_test_images(data)
        started = time.perf_counter()
        classifier = Classifier(bundle, device)
        loaded = time.perf_counter() - started
        session = open_session(bundle, device)
        call = caller(session, images[:1])
        first = [round(1000 * measure_seconds(call), 3) for _ in range(5)]
        yield (
            name_of(folder),
            {
                "providers": classifier.providers,
                "load_and_self_test_seconds": round(loaded, 3),
                "nodes": nodes_by_provider(session),
                "first_runs_ms": first,
                "parity": compare_with_cpu(bundle, device, images),
                "memory_mib": memory_mib(device),
            },
        )


def time_sessions(device: Device) -> Bundles:
    """Time each bundle at each batch size, with each way to run a session.

    The ways are plain runs, bound memory, and on a GPU CUDA graphs and other options.
    """
    plain = PROVIDER_OPTIONS if device == "cuda" else {"no TF32": {}}
    bound: dict[str, dict[str, str]] = {"IO binding": CUDA_OPTIONS}
    if device == "cuda":
        bound["CUDA graph"] = CUDA_OPTIONS | {"enable_cuda_graph": "1"}
    for folder in BUNDLES:
        bundle = read_bundle(folder)
        images = golden_inputs(bundle)
        batches = {size: np.resize(images, (size, *images.shape[1:])) for size in BATCH_SIZES}
        for name, options in plain.items():
            session = open_session(bundle, device, options)
            times = {str(size): spread(caller(session, each)) for size, each in batches.items()}
            yield f"{name_of(folder)}, {name}", times
        for name, options in bound.items():
            times = {
                str(size): spread(bound_caller(bundle, device, batches[size], options))
                for size in BOUND_SIZES
            }
            yield f"{name_of(folder)}, {name}", times


def compare_with_cpu(bundle: Bundle, device: Device, images: Images) -> Report:
    """Compare the device's answers with the CPU's, and with the golden set's."""
    expected = run(open_session(bundle, "cpu"), images)
    report: Report = {"images": len(images)}
    for name in ("TF32", "no TF32") if device == "cuda" else ("no TF32",):
        found = run(open_session(bundle, device, PROVIDER_OPTIONS[name]), images)
        report[name] = {
            "largest_difference": float(np.abs(found - expected).max()),
            "same_class": int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
        }
    model = bundle.manifest.name
    if model in golden.TOLERANCES:
        found = run(open_session(bundle, device), golden_inputs(bundle))
        report["difference_from_golden"] = float(np.abs(found - golden.probabilities(model)).max())
    return report


def open_session(
    bundle: Bundle, device: Device, options: dict[str, str] = CUDA_OPTIONS
) -> onnxruntime.InferenceSession:
    """Open a bundle's graph on ``device`` with ``options`` of the CUDA provider."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        onnxruntime.preload_dlls()
        providers.insert(0, ("CUDAExecutionProvider", options))
    return onnxruntime.InferenceSession(bundle.model, settings, providers=providers)


def run(session: onnxruntime.InferenceSession, images: Images) -> NDArray[np.float32]:
    """Classify all images, 100 at a time; return float32 ``[N, classes]``."""
    parts = np.split(images, range(100, len(images), 100))
    return np.concatenate([session.run(["probabilities"], {"image": part})[0] for part in parts])


def caller(session: onnxruntime.InferenceSession, batch: Images) -> Callable[[], object]:
    """Return a call that classifies a batch."""
    return lambda: session.run(["probabilities"], {"image": batch})


def bound_caller(
    bundle: Bundle, device: Device, batch: Images, options: dict[str, str]
) -> Callable[[], object]:
    """Return a call whose input and output stay at fixed places on the device, for CUDA graphs."""
    session = open_session(bundle, device, options)
    shape = (len(batch), len(bundle.manifest.class_names))
    images = onnxruntime.OrtValue.ortvalue_from_numpy(batch, device, 0)
    answers = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("image", images)
    binding.bind_ortvalue_output("probabilities", answers)

    def call() -> object:
        images.update_inplace(batch)
        session.run_with_iobinding(binding)
        return answers.numpy()

    return call


def golden_inputs(bundle: Bundle) -> Images:
    """Turn the golden images into the bundle's inputs, as the service does."""
    spec = InputSpec(bundle.manifest.preprocessing, bundle.manifest.input_size)
    return np.stack([read_image(encode(each), spec, 10**8).image for each in golden.images()])


def spread(call: Callable[[], object]) -> Report:
    """Time the first call, and calls after three runs of warm-up; return milliseconds."""
    first, *_ = [measure_seconds(call) for _ in range(3)]
    times: list[float] = []
    while len(times) < MAX_RUNS and sum(times) < MAX_SECONDS:
        times.append(measure_seconds(call))
    p50, p99 = np.percentile(times, (50, 99)) * 1000
    return {
        "first_ms": round(1000 * first, 2),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
    }


def measure_seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def nodes_by_provider(session: onnxruntime.InferenceSession) -> dict[str, list[str]]:
    """Name the operators that each provider runs. Each of CUDA's nodes is a part."""
    nodes: defaultdict[str, list[str]] = defaultdict(list)
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += [node.op_type for node in part.get_nodes()]
    return dict(nodes)


def read_test_images(data: Path) -> Images:
    """Read the 10,000 test images, uint8 ``[10000, 28, 28]``, without loading Keras."""
    content = gzip.decompress((data / "t10k-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def name_of(folder: Path) -> str:
    """Return NAME/VERSION of a bundle's folder."""
    return f"{folder.parent.name}/{folder.name}"
