"""Scheduling: where the batches of a classifier run, and how many run in parallel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from service.bundle import read_bundle
from service.inference.classification import Classification
from service.inference.classifier import MAX_BATCH, MAX_PHOTO_BATCH, Classifier
from service.inference.scheduling import SHORT_RUN_SECONDS, ScheduledClassifier
from tests.service.bundles import write_photo_bundle

IMAGE = np.zeros((20, 30), np.uint8)
THREADS = 3


class WatchedClassifier(Classifier):
    """A real classifier that records its threads, its batch sizes and its parallel runs.

    If ``barrier`` is set, each batch waits there until enough batches run in parallel.
    """

    barrier: threading.Barrier | None = None

    def watch(self, device: Literal["cuda", "cpu"], seconds_per_image: float) -> None:
        """Start to record. Pretend to run on ``device``, at this speed."""
        self.device, self.seconds_per_image = device, seconds_per_image
        self.threads: set[int] = set()
        self.batches: list[int] = []
        self.running = self.most_running = 0

    def classify(self, images: Sequence[NDArray[np.uint8]]) -> list[Classification]:
        """Record the batch and classify it."""
        if not hasattr(self, "batches"):
            return super().classify(images)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.threads.add(threading.get_ident())
        self.batches.append(len(images))
        if self.barrier is not None:
            self.barrier.wait(30)
        answers = super().classify(images)
        self.running -= 1
        return answers


@pytest.fixture
def classifier(linear_folder: Path) -> WatchedClassifier:
    """A classifier of the linear bundle."""
    return WatchedClassifier(read_bundle(linear_folder), "cpu")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """A pool of ``THREADS`` threads."""
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


def classify(scheduled: ScheduledClassifier, count: int, image: NDArray[np.uint8] = IMAGE) -> None:
    """Classify ``image`` ``count`` times; the copies arrive at the same time."""

    async def main() -> None:
        await asyncio.gather(*(scheduled.classify(image) for _ in range(count)))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("device", "seconds", "threads", "count", "in_event_loop"),
    [
        ("cpu", SHORT_RUN_SECONDS / 2, 1, 1, True),
        ("cpu", SHORT_RUN_SECONDS / 5, 1, 4, True),
        ("cpu", SHORT_RUN_SECONDS / 4, 1, 4, False),
        ("cpu", SHORT_RUN_SECONDS, 1, 1, False),
        ("cpu", SHORT_RUN_SECONDS / 2, 2, 1, False),
        ("cuda", SHORT_RUN_SECONDS / 2, 1, 1, False),
    ],
)
def test_only_short_batches_on_one_cpu_thread_run_in_the_event_loop(
    classifier: WatchedClassifier,
    pool: ThreadPoolExecutor,
    device: Literal["cuda", "cpu"],
    seconds: float,
    threads: int,
    count: int,
    in_event_loop: bool,
) -> None:
    """A long batch, one on a GPU, or one of several parallel ones takes a thread of the pool."""
    classifier.watch(device, seconds)
    classify(ScheduledClassifier(classifier, pool, threads), count)
    assert classifier.batches == [count]
    assert (classifier.threads == {threading.get_ident()}) is in_event_loop


def test_cpu_runs_a_batch_on_each_thread(
    classifier: WatchedClassifier, pool: ThreadPoolExecutor
) -> None:
    """On a CPU, as many batches run in parallel as there are threads."""
    classifier.watch("cpu", SHORT_RUN_SECONDS)
    classifier.barrier = threading.Barrier(THREADS)
    classify(ScheduledClassifier(classifier, pool, THREADS), THREADS * MAX_BATCH)
    assert classifier.most_running == THREADS


def test_gpu_runs_one_batch_at_a_time(
    classifier: WatchedClassifier, pool: ThreadPoolExecutor
) -> None:
    """On a GPU, one batch runs at a time, even if there are several threads."""
    classifier.watch("cuda", SHORT_RUN_SECONDS / 2)
    classify(ScheduledClassifier(classifier, pool, THREADS), 5 * MAX_BATCH)
    assert classifier.most_running == 1
    assert classifier.batches == [MAX_BATCH] * 5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_of_photos_are_smaller(
    tmp_path: Path, pool: ThreadPoolExecutor, device: Literal["cuda", "cpu"]
) -> None:
    """A batch of photos takes much memory. On a GPU each batch is filled up to its largest size."""
    bundle = write_photo_bundle(tmp_path / "1")
    classifier = WatchedClassifier(bundle, "cpu")
    classifier.watch(device, SHORT_RUN_SECONDS)
    photo = np.zeros(classifier.input_spec.shape, np.uint8)
    classify(ScheduledClassifier(classifier, pool, 1), MAX_BATCH, photo)
    assert max(classifier.batches) == MAX_PHOTO_BATCH
    assert sum(classifier.batches) == MAX_BATCH
