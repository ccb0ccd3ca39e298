"""A classifier behind a batcher: where its batches run, and how many run in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.inference.batching import Batched, Batcher
from service.inference.classification import Classification
from service.inference.classifier import Classifier

SHORT_RUN_SECONDS = 0.004  # a batch may block the event loop for this long


class ScheduledClassifier:
    """A classifier that takes single images and runs them in batches.

    Batches run on ``pool``, which has ``threads`` threads. With one thread, a short batch runs in
    the event loop, because a thread hop costs more than it gains. A longer batch runs on the
    thread, because the event loop must answer other requests meanwhile.
    """

    # The function that the batcher runs must not refer to this object: a reference cycle keeps an
    # old session in memory until the garbage collector runs, and it runs rarely.

    def __init__(self, classifier: Classifier, pool: ThreadPoolExecutor, threads: int) -> None:
        self.classifier = classifier
        on_cpu = classifier.device == "cpu"
        run = partial(_run, classifier, pool, in_event_loop=on_cpu and threads == 1)
        # A GPU is fastest with one batch at a time. On a CPU, parallel batches use all cores.
        slots = threads if on_cpu else 1
        self._batcher = Batcher(run, max_batch=classifier.max_batch, slots=slots)

    @property
    def depth(self) -> int:
        """Number of images that wait for a batch."""
        return self._batcher.depth

    @property
    def longest_run_seconds(self) -> float:
        """For how long the oldest of the batches that run now has been running."""
        return self._batcher.longest_run_seconds

    async def classify(self, image: NDArray[np.uint8]) -> Batched[Classification]:
        """Classify ``image``, uint8 ``[height, width]``, in one batch with other waiting images.

        Raises:
            Exception: The classifier failed on this image.
        """
        return await self._batcher.submit(image)


async def _run(
    classifier: Classifier,
    pool: ThreadPoolExecutor,
    images: Sequence[NDArray[np.uint8]],
    *,
    in_event_loop: bool,
) -> list[Classification]:
    if in_event_loop and len(images) * classifier.seconds_per_image < SHORT_RUN_SECONDS:
        return classifier.classify(images)
    return await asyncio.get_running_loop().run_in_executor(pool, classifier.classify, images)
