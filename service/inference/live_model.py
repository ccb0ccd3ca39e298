"""A model that serves: load it, test it, swap in newer versions, recover from failures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle import list_files, list_versions, newest_version
from service.errors import (
    BundleError,
    DeviceError,
    InferenceError,
    NotReadyError,
    ServiceError,
)
from service.inference.batching import Batched
from service.inference.classification import Classification
from service.inference.classifier import Classifier
from service.inference.scheduling import ScheduledClassifier

log = logging.getLogger(__name__)

LOADS_ON_FAILED_DEVICE = 6

Status = Literal["starting", "ready", "draining", "failed"]

Files = frozenset[tuple[object, ...]]
"""See ``list_files``."""


class LiveModel:
    """Keeps one model in service: swaps in newer versions and replaces a classifier that fails.

    ``folder`` is a bundle, or holds the versions of one. ``load`` returns a classifier of the
    version in a folder. It is called at the start, for each newer version, and after each failed
    self-test. ``schedule`` puts a classifier behind a batcher. ``on_failure`` is called if no
    version can be loaded, or if a self-test or a load hangs. Then ``is_hung`` is true, and only a
    new process can serve the model.

    A device may fail while the model serves, for example because another process takes its memory.
    Then ``watch`` loads the model again at each interval. If this has failed LOADS_ON_FAILED_DEVICE
    times, ``has_lost_device`` is true and ``on_failure`` is called: a new process may be able to
    use the device.
    """

    # A device that hangs raises no error.
    self_test_timeout_seconds = 30.0
    load_timeout_seconds = 300.0

    def __init__(
        self,
        folder: Path,
        load: Callable[[Path], Classifier],
        schedule: Callable[[Classifier], ScheduledClassifier],
        on_failure: Callable[[], None] = lambda: None,
        *,
        check_interval_seconds: float,
    ) -> None:
        self.name = _name_folder(folder)
        self.folder = folder
        self._load = load
        self._schedule = schedule
        self._on_failure = on_failure
        # asyncio.run() waits for the threads of asyncio.to_thread(), and one may hang.
        self._test_pool = ThreadPoolExecutor(1, thread_name_prefix="test")
        self._load_pool = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._check_interval_seconds = check_interval_seconds
        self._draining = False
        self._failed = False
        self.is_hung = self.has_lost_device = False
        self._failed_loads: int | None = None  # since the device failed; None while it works
        self._is_on_cuda = False
        self._serving: ScheduledClassifier | None = None
        self._newest: Path | None = None  # the newest version when one was last loaded
        self._rejected_files: Files | None = None  # of the newest version, if it was rejected
        self._last_success = 0.0
        self._swap_lock = asyncio.Lock()
        self._recoveries: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references

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
    def longest_run_seconds(self) -> float:
        """For how long the oldest of the batches that run now has been running."""
        return self._serving.longest_run_seconds if self._serving else 0.0

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
            raise NotReadyError(f"the model {self.name} is {self.status}; try again later")
        return self._serving

    async def classify(
        self, scheduled: ScheduledClassifier, image: NDArray[np.uint8]
    ) -> Batched[Classification]:
        """Classify ``image``, a model input, with a classifier that ``current`` gave.

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
        """Load the first classifier. The status is then ``ready`` or ``failed``.

        A version that is rejected is logged, and the next older one is loaded.
        """
        async with self._swap_lock:
            await self._replace()

    async def reload(self) -> None:
        """Load the newest version and swap it in; if loading fails, the current version stays."""
        async with self._swap_lock:
            newest = self._find_newest()
            files = list_files(newest)  # before they are read, so that no change is missed
            self._newest = newest
            try:
                classifier = await self._run_load(partial(self._load_on_same_device, newest))
            except Exception as error:  # whatever the error is, the current version can still serve
                log.error(
                    "model %s: the new version is rejected, the current version keeps serving; "
                    "the new one is tried again when its files change: %s",
                    self.name,
                    error,
                )
                self._rejected_files = files
                return
            self._rejected_files = None
            self._swap(classifier)

    async def self_test(self, classifier: Classifier) -> None:
        """Run the self-test of ``classifier``; if the test fails, load the model again.

        A classifier that no longer serves is not tested. If the test hangs, this process has lost
        the device and the test's thread, so only a new process can serve.
        """
        async with self._swap_lock:
            if self.classifier is not classifier:
                return
            loop, seconds = asyncio.get_running_loop(), self.self_test_timeout_seconds
            try:
                async with asyncio.timeout(seconds):
                    await loop.run_in_executor(self._test_pool, classifier.self_test)
            except ServiceError as error:
                log.error(
                    "model %s: the self-test failed, the model is loaded again: %r",
                    self.name,
                    error,
                )
                self._serving = None
                self._failed, self._failed_loads = True, 0
                await self._replace()
            except TimeoutError:
                self._serving = None
                self._fail_hung(f"the self-test has not ended after {seconds:g} seconds")
            else:
                self._last_success = time.monotonic()

    async def watch(self) -> None:
        """Check the model at intervals, forever.

        If the newest version is another one than before, load it. A version that is rejected is
        tried again when its files have changed: it may have been copied meanwhile. A classifier
        that has answered nothing since the last check runs its self-test.
        """
        interval = self._check_interval_seconds
        while True:
            await asyncio.sleep(interval)
            if self._newest is None:  # start() has not begun
                continue
            if self._failed_loads is not None:
                async with self._swap_lock:
                    await self._replace()
                continue
            newest, rejected = self._find_newest(), self._rejected_files
            is_changed = rejected is not None and list_files(newest) != rejected
            if newest != self._newest or is_changed:
                await self.reload()
            elif self.classifier is not None and time.monotonic() - self._last_success >= interval:
                await self.self_test(self.classifier)

    def drain(self) -> None:
        """Set the status to ``draining``. Requests in flight are still answered."""
        self._draining = True

    def close(self) -> None:
        """Let the threads stop after their current test or load, without waiting for them."""
        for pool in (self._test_pool, self._load_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    def _find_newest(self) -> Path:
        try:
            return newest_version(self.folder)
        except BundleError as error:
            log.error("model %s: the current version keeps serving: %s", self.name, error)
            return self._newest or self.folder

    async def _replace(self) -> None:
        try:
            classifier = await self._run_load(self._load_newest_complete)
        except TimeoutError as error:
            self._fail_hung(str(error))
        except Exception as error:
            traceback = None if isinstance(error, ServiceError) else error
            log.critical("%s", error, exc_info=traceback)
            self._failed = True
            if self._failed_loads is not None and isinstance(error, (DeviceError, InferenceError)):
                self._failed_loads += 1
                if self._failed_loads < LOADS_ON_FAILED_DEVICE:
                    return  # watch() tries again
                self.has_lost_device = True
            self._on_failure()
        else:
            self._swap(classifier)

    async def _run_load(self, load: Callable[[], Classifier]) -> Classifier:
        """Run ``load`` on a thread.

        Raises:
            TimeoutError: It hangs.
        """
        loop, seconds = asyncio.get_running_loop(), self.load_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await loop.run_in_executor(self._load_pool, load)
        except TimeoutError:
            raise TimeoutError(f"loading has not ended after {seconds:g} seconds") from None

    def _fail_hung(self, reason: str) -> None:
        log.critical("model %s: %s", self.name, reason)
        self._failed = self.is_hung = True
        self._on_failure()

    def _load_newest_complete(self) -> Classifier:
        """Load the newest version that is not rejected; if all are, raise an error of one.

        A copy of a new version may not have ended, and the older version can serve meanwhile.
        """
        self._newest, self._rejected_files = self.folder, None
        versions = list_versions(self.folder)
        self._newest = versions[0]
        errors: list[ServiceError] = []
        for version in versions:
            files = list_files(version)  # before they are read, so that no change is missed
            try:
                classifier = self._load_on_same_device(version)
            except (BundleError, InferenceError) as error:
                if not errors:
                    self._rejected_files = files
                errors.append(error)
                continue
            for rejected in errors:
                log.error(
                    "model %s: a newer version is rejected, an older version serves; the newest "
                    "one is tried again when its files change: %s",
                    self.name,
                    rejected,
                )
            return classifier
        raise next((error for error in errors if isinstance(error, InferenceError)), errors[0])

    def _load_on_same_device(self, version: Path) -> Classifier:
        """Load a version. With the device ``auto``, a busy GPU must not turn it into a slow one.

        Raises:
            DeviceError: The model has served on CUDA, and the classifier would run on the CPU.
        """
        classifier = self._load(version)
        if self._is_on_cuda and classifier.device == "cpu":
            raise DeviceError(f"{version} does not run on CUDA now; the log above says why")
        return classifier

    def _swap(self, classifier: Classifier) -> None:
        self._serving = self._schedule(classifier)
        self._failed, self._failed_loads = False, None
        self._is_on_cuda = classifier.device == "cuda"
        self._last_success = time.monotonic()
        self.name = classifier.manifest.name
        version = classifier.manifest.version
        log.info("model %s version %s serves on %s", self.name, version, classifier.device)


def _name_folder(folder: Path) -> str:
    """Return the name of the model in ``folder``, ``NAME`` or ``NAME/VERSION``, until it loads."""
    return folder.parent.name if folder.name[:1].isdecimal() else folder.name
