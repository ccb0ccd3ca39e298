"""Own the way from uploaded bytes to probabilities, off the event loop, and the status that /health tells."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from service.bundle import read_bundle
from service.classifier import Classification, Classifier
from service.errors import BundleError, NotReadyError
from service.imaging import PREPROCESSING, read_image
from service.settings import Settings

log = logging.getLogger(__name__)

Status = Literal["starting", "ready", "draining", "failed"]


class Predictor:
    """Loads the model and answers uploads with it, several at a time.

    ``classifier`` is None until it is loaded.
    """

    def __init__(self, settings: Settings) -> None:
        self.status: Status = "starting"
        self._settings = settings
        self._started = time.monotonic()
        self.classifier: Classifier | None = None
        self._threads = ThreadPoolExecutor(settings.threads or _cores(), thread_name_prefix="predict")

    @property
    def uptime_seconds(self) -> float:
        """Seconds since this predictor was made."""
        return time.monotonic() - self._started

    async def load(self) -> None:
        """Load and verify the model; the status is ``ready`` afterwards, or ``failed`` when this raises.

        Raises:
            BundleError, DeviceError: See ``Classifier``.
        """
        try:
            self.classifier = await asyncio.get_running_loop().run_in_executor(self._threads, self._load)
        except BaseException:
            self.status = "failed"
            raise
        self.status = "ready"
        manifest = self.classifier.manifest
        log.info("model %s version %s is ready on %s", manifest.name, manifest.version, self.classifier.device)

    async def predict(self, upload: bytes) -> Classification:
        """Classify one uploaded image.

        Raises:
            NotReadyError: The model is not loaded yet, or the service is stopping.
            InvalidRequestError: The upload cannot be answered; see ``read_image``.
        """
        if self.classifier is None or self.status != "ready":
            raise NotReadyError(f"the service is {self.status} and takes no uploads now; try again later")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._predict, self.classifier, upload)

    def close(self) -> None:
        """Take no more uploads, and finish those that were taken."""
        self.status = "draining"
        self._threads.shutdown()

    def _load(self) -> Classifier:
        bundle = read_bundle(self._settings.model)
        if bundle.manifest.preprocessing != PREPROCESSING:
            raise BundleError(
                f"{bundle.folder} expects the preprocessing {bundle.manifest.preprocessing!r} "
                f"but this service has {PREPROCESSING!r}: serve it with the release that it was exported by"
            )
        return Classifier(bundle, self._settings.device)

    def _predict(self, classifier: Classifier, upload: bytes) -> Classification:
        image = read_image(upload, classifier.manifest.input_size, self._settings.max_image_pixels)
        return Classification(classifier.manifest, classifier.classify(image[np.newaxis])[0])


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
