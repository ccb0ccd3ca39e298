"""The files in which workers share their metrics, written by real processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from service.telemetry.shared_files import SharedFiles, forget_worker

LABELS = ("/predict", "200")


def count(folder: Path, requests: float) -> int:
    """Write what a worker has counted; return its process id."""
    SharedFiles(folder).write({"requests": {LABELS: [requests]}}, {"ready": {(): [1.0]}})
    return os.getpid()


def read_others(folder: Path) -> tuple[float, int]:
    """Return the requests of all other workers, and how many of them have gauges."""
    parts = SharedFiles(folder).read_others()
    requests = [part["requests"][LABELS][0] for part in parts if "requests" in part]
    return sum(requests), sum("ready" in part for part in parts)


@pytest.fixture
def workers(tmp_path: Path) -> list[int]:
    """The ids of two processes that have counted 3 and 4 requests."""
    spawn = multiprocessing.get_context("spawn")
    ids = []
    for requests in (3.0, 4.0):
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            ids.append(process.submit(count, tmp_path, requests).result())
    return ids


def test_workers_read_what_the_others_have_counted(tmp_path: Path, workers: list[int]) -> None:
    """A worker reads the files of all others, not its own; writing again replaces a file."""
    assert len(set(workers)) == 2
    for requests in (5.0, 6.0):
        count(tmp_path, requests)
        assert read_others(tmp_path) == (7, 2)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ""}


def test_counts_of_ended_workers_stay(tmp_path: Path, workers: list[int]) -> None:
    """Counts outlive their workers, one after the other; gauges do not."""
    for number, worker in enumerate(workers, start=1):
        forget_worker(worker, tmp_path)
        assert read_others(tmp_path) == (7, 2 - number)
        assert not list(tmp_path.glob(f"*{worker}*"))


def test_worker_that_wrote_nothing_is_forgotten(tmp_path: Path, workers: list[int]) -> None:
    """A worker may end before it has written; the counts of the others stay."""
    forget_worker(max(workers) + 1, tmp_path)
    assert read_others(tmp_path) == (7, 2)


def test_folder_is_made_again(tmp_path: Path) -> None:
    """Systems delete old temporary files; the next write makes the folder again."""
    count(tmp_path, 1.0)
    shutil.rmtree(tmp_path)
    count(tmp_path, 1.0)
    assert read_others(tmp_path) == (0, 0)
    assert (tmp_path / f"counts-{os.getpid()}.json").exists()
