"""Own the classifier: a bundle's session, put to its self-test, that classifies batches. No images, no HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle import Bundle, self_test_image
from service.errors import InferenceError
from service.inference.classification import Classification
from service.inference.session import CUDA, check_contract, open_session
from service.settings import Device

SELF_TEST_TOLERANCE = 0.01  # between devices and number formats; a broken device is off by far more


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
        self._session = open_session(bundle.model, device)
        self.providers = tuple(self._session.get_providers())
        self.device: Literal["cuda", "cpu"] = "cuda" if CUDA in self.providers else "cpu"
        check_contract(self._session, bundle.manifest)
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
