"""The model that serves: load it, test it, swap in newer versions, recover from failures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle import list_files, newest_version
from service.errors import BundleError, InferenceError, NotReadyError, ServiceError
from service.inference.batching import Batched
from service.inference.classification import Classification
from service.inference.classifier import Classifier
from service.inference.scheduling import ScheduledClassifier
from service.settings import Settings

log = logging.getLogger(__name__)

Status = Literal["starting", "ready", "draining", "failed"]

SELF_TEST_TIMEOUT_SECONDS = 30  # a device that hangs raises no error


class LiveModel:
    """Keeps one model in service: swaps in newer versions and replaces a classifier that fails.

    ``load`` returns a classifier of the newest version. It is called at the start, for each newer
    version, and once after each failed self-test. ``give_up`` calls ``on_failure``.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Classifier],
        on_failure: Callable[[], None] = lambda: None,
        *,
        threads: int,
    ) -> None:
        self._settings = settings
        self._load = load
        self._on_failure = on_failure
        self._draining = False
        self._failed = False
        self._serving: ScheduledClassifier | None = None
        self._last_success = 0.0
        self._swap_lock = asyncio.Lock()
        self._recoveries: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references
        self._threads = threads
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="infer")

    @property
    def status(self) -> Status:
        """Whether the model takes traffic, and if not, why."""
        if self._draining:
            return "draining"
        if self._failed:
            return "failed"
        return "starting" if self._serving is None else "ready"

    @property
    def classifier(self) -> Classifier | None:
        """The classifier that serves; None before the first one is loaded and after a failure."""
        return self._serving.classifier if self._serving else None

    @property
    def queue_depth(self) -> int:
        """Number of images that wait for a batch."""
        return self._serving.depth if self._serving else 0

    def current(self) -> ScheduledClassifier:
        """Return the classifier that serves now.

        Raises:
            NotReadyError: No classifier serves.
        """
        if self._serving is None:
            raise NotReadyError(
                f"the service is {self.status} and takes no uploads now; try again later"
            )
        return self._serving

    async def classify(
        self, scheduled: ScheduledClassifier, image: NDArray[np.uint8]
    ) -> Batched[Classification]:
        """Classify ``image``, uint8 ``[height, width]``, with a classifier that ``current`` gave.

        Raises:
            InferenceError: The classifier failed on this image. Before this error is raised, the
                classifier runs its self-test, unless it was already replaced.
        """
        try:
            batched = await scheduled.classify(image)
        except Exception as error:
            log.exception("inference failed")
            # Recover in a separate task: a cancelled request must not cancel the recovery and leave
            # the service without a model.
            recovery = asyncio.create_task(self.self_test(scheduled.classifier))
            self._recoveries.add(recovery)
            recovery.add_done_callback(self._recoveries.discard)
            await asyncio.shield(recovery)
            raise InferenceError("the model failed on this image; try again later") from error
        self._last_success = time.monotonic()
        return batched

    async def start(self) -> None:
        """Load the first classifier. The status is then ``ready`` or ``failed``."""
        async with self._swap_lock:
            await self._replace()

    async def reload(self) -> bool:
        """Load the newest version and swap it in; return whether this succeeded.

        If loading fails, the current version stays.
        """
        async with self._swap_lock:
            try:
                classifier = await asyncio.to_thread(self._load)
            except Exception as error:  # whatever the error is, the current version can still serve
                log.error(
                    "the new model is rejected, the current model keeps serving; "
                    "the new one is tried again when its files change: %s",
                    error,
                )
                return False
            self._swap(classifier)
            return True

    async def self_test(self, classifier: Classifier) -> None:
        """Run the self-test of ``classifier``; if the test fails, load the model again.

        A classifier that no longer serves is not tested.
        """
        async with self._swap_lock:
            if self.classifier is not classifier:
                return
            try:
                async with asyncio.timeout(SELF_TEST_TIMEOUT_SECONDS):
                    await asyncio.to_thread(classifier.self_test)
            except (ServiceError, TimeoutError) as error:
                log.error("the self-test failed, the model is loaded again: %r", error)
                self._serving = None
                self._failed = True
                await self._replace()
            else:
                self._last_success = time.monotonic()

    async def watch(self) -> None:
        """Check the model at intervals, forever.

        If there is a newer version, load it. A version that is rejected is tried again when its
        files have changed: it may have been copied meanwhile. A classifier that has answered
        nothing since the last check runs its self-test.
        """
        interval = self._settings.check_interval_seconds
        newest = self._settings.model
        with suppress(BundleError):  # start() has logged it
            newest = newest_version(newest)
        rejected_files = None
        while True:
            await asyncio.sleep(interval)
            seen, newest = newest, self._find_newest(newest)
            is_changed = rejected_files is not None and list_files(newest) != rejected_files
            if newest != seen or is_changed:
                files = list_files(newest)  # before they are read, so that no change is missed
                rejected_files = None if await self.reload() else files
            elif self.classifier is not None and time.monotonic() - self._last_success >= interval:
                await self.self_test(self.classifier)

    def drain(self) -> None:
        """Set the status to ``draining``. Requests in flight are still answered."""
        self._draining = True

    def give_up(self, reason: object, exc_info: Exception | None = None) -> None:
        """Log ``reason``, set the status to ``failed`` and call ``on_failure``."""
        log.critical("%s", reason, exc_info=exc_info)
        self._failed = True
        self._on_failure()

    def close(self) -> None:
        """Let the threads stop after their current batch, without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _find_newest(self, seen: Path) -> Path:
        try:
            return newest_version(self._settings.model)
        except BundleError as error:
            log.error("the current model keeps serving: %s", error)
            return seen

    async def _replace(self) -> None:
        try:
            classifier = await asyncio.to_thread(self._load)
        except Exception as error:
            self.give_up(error, exc_info=None if isinstance(error, ServiceError) else error)
        else:
            self._swap(classifier)

    def _swap(self, classifier: Classifier) -> None:
        self._serving = ScheduledClassifier(classifier, self._pool, self._threads)
        self._failed = False
        self._last_success = time.monotonic()
        name, version = classifier.manifest.name, classifier.manifest.version
        log.info("model %s version %s serves on %s", name, version, classifier.device)
