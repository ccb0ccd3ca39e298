"""How many workers serve, and how many threads each has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.machine.resources import available_cores
from service.machine.sizing import (
    IDLE_BYTES,
    MAX_WORKERS,
    count_threads,
    count_workers,
    largest_image_bytes,
)
from service.settings import Settings
from tests.service.machine.test_resources import write_machine

CPU = Settings(device="cpu")
WORKER_BYTES = IDLE_BYTES + largest_image_bytes(CPU)


def test_each_core_has_a_worker(tmp_path: Path) -> None:
    """Without limits there is one worker for each core, up to MAX_WORKERS."""
    assert count_workers(CPU, tmp_path) == min(len(os.sched_getaffinity(0)), MAX_WORKERS)


@pytest.mark.parametrize(
    ("file", "limit"),
    [
        ("cpu.max", "100000 100000"),
        ("memory.max", str(WORKER_BYTES)),
        ("memory.max", str(WORKER_BYTES // 2)),
    ],
)
def test_container_with_room_for_one_worker_has_one(tmp_path: Path, file: str, limit: str) -> None:
    """A container with one core, or with memory for one worker or less, has one worker."""
    root = write_machine(tmp_path, {"proc/self/cgroup": "0::/", f"sys/fs/cgroup/{file}": limit})
    assert count_workers(CPU, root) == 1


def test_gpu_has_one_worker(tmp_path: Path) -> None:
    """On a GPU, there is only one worker."""
    assert count_workers(Settings(device="cuda"), tmp_path) == 1


def test_settings_come_first(tmp_path: Path) -> None:
    """Numbers in the settings are used, whatever the machine has."""
    settings = Settings(device="cpu", workers=31, threads=7)
    assert count_workers(settings, tmp_path) == 31
    assert count_threads(settings, 31, tmp_path) == 7


def test_memory_limits_the_threads(tmp_path: Path) -> None:
    """A worker has only as many threads as its memory holds images of the largest allowed size."""
    limit = str(WORKER_BYTES + largest_image_bytes(CPU) // 2)
    root = write_machine(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": limit})
    assert count_threads(CPU, 1, root) == 1
    small = Settings(device="cpu", max_image_pixels=CPU.max_image_pixels // 100)
    assert count_workers(small, root) == count_workers(CPU, tmp_path / "unlimited")
    assert count_threads(small, 1, root) == available_cores(root)


@pytest.mark.parametrize("workers", [1, 2, 1000])
def test_workers_share_the_cores(tmp_path: Path, workers: int) -> None:
    """There are at most as many threads as cores, but each worker has at least one."""
    assert count_threads(CPU, workers, tmp_path) == max(1, available_cores(tmp_path) // workers)
