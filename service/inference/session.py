"""Sessions of ONNX Runtime: open one on a device, and check it. The only importer of onnxruntime."""

from __future__ import annotations

import ctypes
import logging
import os

import onnxruntime

from service.bundle import Manifest
from service.errors import BundleError, DeviceError
from service.settings import Device

log = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
HEAVY_OPERATORS = frozenset({"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul"})


def open_session(model: bytes, device: Device) -> onnxruntime.InferenceSession:
    """Open a session of ``model`` on ``device``.

    Raises:
        BundleError: ONNX Runtime cannot load ``model``.
        DeviceError: ``device`` is ``cuda`` and the session does not run on it.
    """
    if device == "cpu":
        return _create_session(model, [CPU])
    missing = _missing_for_cuda()
    if missing is None:
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip installed them
        session = _create_session(model, [CUDA, CPU])
        missing = _missing_on_cuda(session)
        if missing is None:
            return session
    if device == "cuda":
        raise DeviceError(
            f"SERVICE_DEVICE=cuda, but {missing}; mend that, or set SERVICE_DEVICE to cpu or auto"
        )
    log.warning("no CUDA device is used: %s; serving on the CPU", missing)
    return _create_session(model, [CPU])


def check_contract(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """Compare the inputs and outputs of ``session`` with ``manifest``.

    Raises:
        BundleError: They differ.
    """
    height, width = manifest.input_size
    inputs = {i.name: (i.type, i.shape[1:]) for i in session.get_inputs()}
    expected = {"image": ("tensor(uint8)", [height, width])}
    if inputs != expected:
        raise BundleError(
            f"model.onnx takes {inputs} but the manifest and the contract say {expected}"
        )
    outputs = {o.name: (o.type, o.shape[1:]) for o in session.get_outputs()}
    if outputs.get("probabilities") != ("tensor(float)", [len(manifest.class_names)]):
        raise BundleError(
            f"model.onnx gives {outputs} but the manifest lists {len(manifest.class_names)} classes "
            "for its output probabilities"
        )
    if manifest.distance_threshold is not None and outputs.get("distance") != (
        "tensor(float)",
        [],
    ):
        raise BundleError(
            f"model.onnx gives {outputs} but the manifest has a threshold for its output distance"
        )


def _create_session(model: bytes, providers: list[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # One thread a batch where there are several batches: they run side by side, and together they use all cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The manifest's hash covers the model alone: weights in files beside it must not be read from anywhere.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # Without enable_fallback=0 a session whose GPU fails turns into a CPU session in place, and says nothing.
        return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # the bindings' exceptions share no base but Exception
        raise BundleError(f"ONNX Runtime cannot load model.onnx: {error}") from error


def _missing_for_cuda() -> str | None:
    """Say what an attempt at CUDA lacks before it is made: get_available_providers() lists CUDA without a GPU too."""
    if CUDA not in onnxruntime.get_available_providers():
        return "this build of onnxruntime has no CUDA provider (the package onnxruntime-gpu has)"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed (libcuda.so.1 cannot be loaded)"
    return None


def _missing_on_cuda(session: onnxruntime.InferenceSession) -> str | None:
    """Say what of the session's work is not on CUDA, whatever was asked for."""
    if CUDA not in session.get_providers():
        return "the session did not get the CUDA provider (ONNX Runtime's own lines above say why)"
    for subgraph in session.get_provider_graph_assignment_info():
        strays = sorted(
            node.name for node in subgraph.get_nodes() if node.op_type in HEAVY_OPERATORS
        )
        if subgraph.ep_name != CUDA and strays:
            return f"{subgraph.ep_name} and not CUDA runs {', '.join(strays)}"
    return None
