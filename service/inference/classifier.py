"""The classifier: a bundle's session that classifies batches of images and tests itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, newest_version, read_bundle, self_test_image
from service.errors import BundleError, InferenceError
from service.imaging.model_input import PREPROCESSINGS, SUPERSEDED, InputSpec
from service.inference.classification import Classification
from service.inference.session import CUDA, check_session, choose_outputs, open_session
from service.settings import Device

log = logging.getLogger(__name__)

# A larger batch is no faster per image on a CPU, and each caller waits longer. On a GPU all batches
# have this size, so a larger one would make a lone photo slower.
MAX_BATCH = 32
MAX_PHOTO_BATCH = 8  # each photo in a batch takes about 5 MiB
SELF_TEST_TOLERANCE = 0.01  # answers differ less between working devices, more on a broken one


class Classifier:
    """A loaded bundle that turns batches of images into probabilities. Thread-safe.

    ``device`` and ``providers`` say what the session really uses, not what was requested.
    ``outputs`` names the outputs of the model that the service uses. ``max_batch`` is the largest
    number of images that a batch should have.
    """

    def __init__(self, bundle: Bundle, device: Device) -> None:
        """Load ``bundle`` on ``device`` and run its self-test.

        Raises:
            BundleError: The model differs from its manifest.
            InferenceError: See ``self_test``.
            DeviceError: ``device`` is ``cuda`` and the session does not run on it.
        """
        self.manifest = bundle.manifest
        self.card = bundle.card
        preprocessing = bundle.manifest.preprocessing
        self.input_spec = InputSpec(
            SUPERSEDED.get(preprocessing, preprocessing), bundle.manifest.input_size
        )
        self.max_batch = MAX_BATCH if self.input_spec.is_grey else MAX_PHOTO_BATCH
        self._session = open_session(bundle.model, device)
        self.providers = tuple(self._session.get_providers())
        self.device: Literal["cuda", "cpu"] = "cuda" if CUDA in self.providers else "cpu"
        check_session(self._session, bundle.manifest, self.input_spec)
        self.outputs = choose_outputs(self._session, bundle.manifest)
        self.self_test()
        self.seconds_per_image = min(self._time_one_image() for _ in range(3))

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> list[Classification]:
        """Classify ``images``, each uint8 of ``input_spec.shape``, in one batch."""
        batch = np.stack(images)
        if self.device == "cuda":
            # cuDNN plans every convolution anew, for up to a second in all, whenever a batch has
            # another size than the one before.
            batch = pad_batch(batch, self.max_batch)
        arrays = self._session.run(self.outputs, {"image": batch})
        if len(batch) > len(images):
            arrays = [array[: len(images)] for array in arrays]
        outputs = dict(zip(self.outputs, arrays, strict=True))
        probabilities = outputs["probabilities"]
        class_ids = probabilities.argmax(axis=1).tolist()  # the first one if several are equal
        none = [None] * len(images)
        distances = outputs["distance"].tolist() if "distance" in outputs else none
        activations = outputs.get("activations", none)
        rows = zip(probabilities.tolist(), class_ids, distances, activations, strict=True)
        return [Classification(self.manifest, *row) for row in rows]

    def self_test(self) -> None:
        """Classify the self-test image and compare the answer with the trained network's answer.

        Raises:
            InferenceError: The session fails, or the answers differ by more than
                ``SELF_TEST_TOLERANCE``.
        """
        image = self_test_image(self.input_spec.shape)
        try:
            answer = np.array(self.classify([image])[0].probabilities)
        except Exception as error:  # ONNX Runtime's exceptions have no narrower base class
            raise InferenceError(f"inference fails on {self.device}: {error}") from error
        difference = float(np.abs(answer - self.manifest.self_test).max())
        if not difference <= SELF_TEST_TOLERANCE:  # NaN fails too
            raise InferenceError(
                f"the self-test's answer differs from the manifest by {difference:.2g}; "
                f"at most {SELF_TEST_TOLERANCE} is allowed: check the device, or export again"
            )

    def _time_one_image(self) -> float:
        image = self_test_image(self.input_spec.shape)
        started = time.perf_counter()
        self.classify([image])
        return time.perf_counter() - started


def pad_batch(batch: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Append black images until the batch has ``size``; a larger batch stays as it is."""
    missing = max(0, size - len(batch))
    return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.uint8)])


def load_classifier(folder: Path, device: Device) -> Classifier:
    """Load the newest version of the model in ``folder``.

    Raises:
        BundleError, DeviceError, InferenceError: See ``Classifier``.
        BundleError: This service does not have the preprocessing that the bundle needs.
    """
    bundle = read_bundle(newest_version(folder))
    if bundle.manifest.preprocessing not in PREPROCESSINGS:
        raise BundleError(
            f"{bundle.folder} needs the preprocessing {bundle.manifest.preprocessing!r}; this "
            f"release knows {', '.join(PREPROCESSINGS)}; serve the model with the release that "
            "exported it"
        )
    version = bundle.manifest.version
    if bundle.folder.name[:1].isdecimal() and bundle.folder.name != version:
        log.warning("%s holds version %s: answers and metrics say so", bundle.folder, version)
    return Classifier(bundle, device)
