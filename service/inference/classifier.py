"""Own the ONNX Runtime session: load, check against the manifest, say what it runs on, classify. No images, no HTTP."""

from __future__ import annotations

import ctypes
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bundle import Bundle, Manifest, self_test_image
from service.errors import BundleError, DeviceError, InferenceError, InvalidParameterError
from service.settings import Device

log = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
SELF_TEST_TOLERANCE = 0.01  # between devices and number formats; a broken device is off by far more
HEAVY_OPERATORS = frozenset({"Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul"})


@dataclass(frozen=True)
class Classification:
    """The answer to one image: ``probabilities`` in the order of the manifest's names, ``class_id`` the likeliest.

    ``distance`` is how far the image is from all classes, None where the model does not tell.
    Plain numbers: each call into NumPy gives the interpreter's lock away, and gets it back after the other threads.
    """

    manifest: Manifest
    probabilities: Sequence[float]
    class_id: int
    distance: float | None = None

    @property
    def in_distribution(self) -> bool | None:
        """Whether the image is near enough to a class to be one, None where the model does not tell."""
        threshold = self.manifest.distance_threshold
        return None if self.distance is None or threshold is None else self.distance <= threshold

    @property
    def class_name(self) -> str:
        """Name of the most likely class."""
        return self.manifest.class_names[self.class_id]

    @property
    def probability(self) -> float:
        """Probability of the most likely class."""
        return self.probabilities[self.class_id]

    def by_name(self, top_k: int | None = None) -> dict[str, float]:
        """Return probability by class name: all in label order, or the ``top_k`` most likely, best first.

        Raises:
            InvalidParameterError: ``top_k`` is not between 1 and the number of classes.
        """
        pairs = list(zip(self.manifest.class_names, self.probabilities, strict=True))
        if top_k is None:
            return dict(pairs)
        if not 1 <= top_k <= len(pairs):
            raise InvalidParameterError(
                f"top_k={top_k}: the model has {len(pairs)} classes; send 1 to {len(pairs)}"
            )
        return dict(sorted(pairs, key=lambda pair: -pair[1])[:top_k])

    def prediction_set(self, coverage: float | None) -> list[str] | None:
        """Return the classes that hold the truth with a probability of at least ``coverage``, best first.

        The set is that of the next coverage which was calibrated; it may be empty. None if no coverage is asked for.

        Raises:
            InvalidParameterError: The model has no prediction sets, or none of this coverage.
        """
        if coverage is None:
            return None
        sets = self.manifest.prediction_sets
        if sets is None:
            raise InvalidParameterError(
                f"coverage={coverage:g}: the model {self.manifest.name} has no prediction sets; leave coverage out"
            )
        low, high = sets.coverages[0], sets.coverages[-1]
        if not low <= coverage <= high:
            raise InvalidParameterError(
                f"coverage={coverage:g} cannot be had of this model; send {low:g} to {high:g}"
            )
        row = next(row for row, calibrated in enumerate(sets.coverages) if calibrated >= coverage)
        minima = dict(zip(self.manifest.class_names, sets.minimum_probabilities[row], strict=True))
        return [name for name, value in self.by_name(len(minima)).items() if value >= minima[name]]


class Classifier:
    """A loaded bundle that turns batches of images into probabilities. Safe to call from several threads.

    ``device`` and ``providers`` are what the session really uses, not what was asked for.
    """

    def __init__(self, bundle: Bundle, device: Device) -> None:
        """Load ``bundle`` on ``device`` and prove it by its self-test.

        Raises:
            BundleError: The model is not what its manifest says.
            InferenceError: See ``self_test``.
            DeviceError: ``device`` is ``cuda`` and the session does not run on it.
        """
        self.manifest = bundle.manifest
        self.card = bundle.card
        self._outputs = (
            ["probabilities"]
            if bundle.manifest.distance_threshold is None
            else ["probabilities", "distance"]
        )
        self._session = _open_session(bundle.model, device)
        self.providers = tuple(self._session.get_providers())
        self.device: Literal["cuda", "cpu"] = "cuda" if CUDA in self.providers else "cpu"
        self._check_contract()
        self.self_test()
        self.seconds_per_image = min(self._time_one_image() for _ in range(3))

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> list[Classification]:
        """Classify ``images``, each uint8 ``[height, width]``, in one batch."""
        probabilities, *distances = self._session.run(self._outputs, {"image": np.stack(images)})
        class_ids = probabilities.argmax(axis=1)  # of equals, the first
        rows = zip(
            probabilities.tolist(),
            class_ids.tolist(),
            *(each.tolist() for each in distances),
            strict=True,
        )
        return [Classification(self.manifest, *row) for row in rows]

    def self_test(self) -> None:
        """Classify the self-test's picture, and compare with the answer of the network that was trained.

        Raises:
            InferenceError: The session fails, or its answer differs by more than ``SELF_TEST_TOLERANCE``.
        """
        image = self_test_image(self.manifest.input_size)
        try:
            answer = np.array(self.classify([image])[0].probabilities)
        except Exception as error:  # the bindings' exceptions share no base but Exception
            raise InferenceError(f"inference fails on {self.device}: {error}") from error
        difference = float(np.abs(answer - self.manifest.self_test).max())
        if not difference <= SELF_TEST_TOLERANCE:
            raise InferenceError(
                f"the model's answer to its self-test differs from the manifest's by {difference:.2g}; "
                f"at most {SELF_TEST_TOLERANCE} is allowed: check the device, or export the model again"
            )

    def _time_one_image(self) -> float:
        image = self_test_image(self.manifest.input_size)
        started = time.perf_counter()
        self.classify([image])
        return time.perf_counter() - started

    def _check_contract(self) -> None:
        height, width = self.manifest.input_size
        inputs = {i.name: (i.type, i.shape[1:]) for i in self._session.get_inputs()}
        expected = {"image": ("tensor(uint8)", [height, width])}
        if inputs != expected:
            raise BundleError(
                f"model.onnx takes {inputs} but the manifest and the contract say {expected}"
            )
        outputs = {o.name: (o.type, o.shape[1:]) for o in self._session.get_outputs()}
        if outputs.get("probabilities") != ("tensor(float)", [len(self.manifest.class_names)]):
            raise BundleError(
                f"model.onnx gives {outputs} but the manifest lists {len(self.manifest.class_names)} classes "
                "for its output probabilities"
            )
        if self.manifest.distance_threshold is not None and outputs.get("distance") != (
            "tensor(float)",
            [],
        ):
            raise BundleError(
                f"model.onnx gives {outputs} but the manifest has a threshold for its output distance"
            )


def _open_session(model: bytes, device: Device) -> onnxruntime.InferenceSession:
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
