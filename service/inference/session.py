"""Open ONNX Runtime sessions on a device and check them. No other module imports onnxruntime."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Any

import onnxruntime

from service.bundle import Manifest
from service.errors import BundleError, DeviceError
from service.imaging.model_input import InputSpec
from service.settings import Device

log = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
# TF32 changes probabilities by a thousandth and saves little of a small batch's time.
CUDA_OPTIONS = {"use_tf32": "0"}
HEAVY_OPERATORS = frozenset({"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul"})


def open_session(model: bytes, device: Device) -> onnxruntime.InferenceSession:
    """Open a session of ``model`` on ``device``.

    Raises:
        BundleError: ONNX Runtime cannot load ``model``.
        DeviceError: ``device`` is ``cuda`` and the session does not run on it.
    """
    if device == "cpu":
        return _create_session(model, [CPU])
    try:
        return _open_on_cuda(model)
    except DeviceError as problem:
        session = _create_session(model, [CPU])  # fails if the model, not the device, is at fault
        if device == "cuda":
            raise DeviceError(
                f"SERVICE_DEVICE=cuda, but {problem}; "
                "fix this, or set SERVICE_DEVICE to cpu or auto"
            ) from problem
        log.warning("the model runs on the CPU, not on CUDA: %s", problem)
        return session


def check_session(
    session: onnxruntime.InferenceSession, manifest: Manifest, input_spec: InputSpec
) -> None:
    """Compare the inputs and outputs of ``session`` with ``manifest`` and ``input_spec``.

    Raises:
        BundleError: They differ.
    """
    inputs = {each.name: (each.type, each.shape[1:]) for each in session.get_inputs()}
    expected = {"image": ("tensor(uint8)", [*input_spec.shape])}
    if inputs != expected:
        raise BundleError(
            f"model.onnx has the inputs {inputs} but the manifest, with the preprocessing "
            f"{input_spec.preprocessing}, needs {expected}"
        )
    outputs = {each.name: (each.type, each.shape[1:]) for each in session.get_outputs()}
    classes = len(manifest.class_names)
    if outputs.get("probabilities") != ("tensor(float)", [classes]):
        raise BundleError(
            f"model.onnx has the outputs {outputs} but the manifest lists {classes} classes "
            "for the output probabilities"
        )
    has_distance = outputs.get("distance") == ("tensor(float)", [])
    if manifest.distance_threshold is not None and not has_distance:
        raise BundleError(
            f"model.onnx has the outputs {outputs} but the manifest has a threshold for the "
            "output distance"
        )
    kind, shape = outputs.get("activations", ("tensor(float)", [classes, None, None]))
    if kind != "tensor(float)" or shape[:1] != [classes] or len(shape) != 3:
        raise BundleError(
            f"model.onnx has the output activations {kind} {shape} but the manifest lists "
            f"{classes} classes; it must be tensor(float) [{classes}, height, width]"
        )


def choose_outputs(session: onnxruntime.InferenceSession, manifest: Manifest) -> list[str]:
    """Return the names of the outputs that the service uses, ``probabilities`` first."""
    outputs = ["probabilities"]
    if manifest.distance_threshold is not None:
        outputs.append("distance")
    # ONNX Runtime computes every output of a model, so fetching one more takes microseconds.
    if any(each.name == "activations" for each in session.get_outputs()):
        outputs.append("activations")
    return outputs


def _open_on_cuda(model: bytes) -> onnxruntime.InferenceSession:
    """Open a session of ``model`` on CUDA.

    Raises:
        DeviceError: The session does not run on CUDA, for whatever reason.
    """
    if problem := _why_no_cuda():
        raise DeviceError(problem)
    onnxruntime.preload_dlls()  # finds CUDA and cuDNN where pip installed them
    try:
        session = _create_session(model, [(CUDA, CUDA_OPTIONS), CPU])
    except BundleError as error:  # for example, another process has taken the GPU's memory
        raise DeviceError(f"the session does not open on CUDA: {error.__cause__}") from error
    if problem := _why_not_on_cuda(session):
        raise DeviceError(problem)
    return session


def _create_session(model: bytes, providers: list[Any]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Batches run in parallel and use all cores together, so each batch needs only one thread.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # The manifest's hash covers the model only: weights in other files must never be read.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    # For _why_not_on_cuda: record which provider runs which node.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # With this fallback, a session whose GPU fails would silently turn into a CPU session.
        return onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no narrower base class
        raise BundleError(f"ONNX Runtime cannot load model.onnx: {error}") from error


def _why_no_cuda() -> str | None:
    """Return why CUDA cannot work on this machine, or None if no obstacle is found."""
    try:
        ctypes.CDLL("libcuda.so.1")  # the provider is listed on machines without a GPU too
    except OSError:
        return "no NVIDIA driver is installed (libcuda.so.1 cannot be loaded)"
    if CUDA not in onnxruntime.get_available_providers():
        return "this build of onnxruntime has no CUDA provider; the package onnxruntime-gpu has it"
    return None


def _why_not_on_cuda(session: onnxruntime.InferenceSession) -> str | None:
    """Return which heavy nodes of ``session`` do not run on CUDA, or None if all of them do."""
    if CUDA not in session.get_providers():
        return "the session did not get the CUDA provider; ONNX Runtime logged the reason above"
    for subgraph in session.get_provider_graph_assignment_info():
        heavy_nodes = sorted(
            node.name for node in subgraph.get_nodes() if node.op_type in HEAVY_OPERATORS
        )
        if subgraph.ep_name != CUDA and heavy_nodes:
            return f"{subgraph.ep_name}, not CUDA, runs the nodes {', '.join(heavy_nodes)}"
    return None
