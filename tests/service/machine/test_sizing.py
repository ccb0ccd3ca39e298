"""How many workers serve, and how many threads each has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.machine.nvidia import needed_cuda
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


DRIVER = """
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = MEMORY; return 0; }
"""


@pytest.mark.skipif(needed_cuda() is None, reason="this build of onnxruntime uses no GPU")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize(
    ("device", "gpu_gib", "container_gib", "limit"),
    [
        ("cuda", 3, 64, 1),
        ("auto", 1, 64, 1),
        ("cuda", 80, 2, 1),
        ("cpu", 1, 64, MAX_WORKERS),
    ],
)
def test_memory_limits_the_workers_on_a_gpu(
    tmp_path: Path, device: str, gpu_gib: int, container_gib: int, limit: int
) -> None:
    """On a GPU, here that of a driver made for this test, a worker needs 2 GiB of its memory.

    It needs more of the container's memory than on a CPU. The number of cores is a limit too.
    """
    (tmp_path / "driver.c").write_text(DRIVER)
    command = ["cc", "-shared", "-fPIC", f"-DMEMORY={gpu_gib * 2**30}ul", "-o", "libcuda.so.1"]
    subprocess.run([*command, "driver.c"], cwd=tmp_path, check=True)
    memory = {"sys/fs/cgroup/memory.max": str(container_gib * 2**30)}
    root = write_machine(tmp_path / "machine", {"proc/self/cgroup": "0::/"} | memory)
    code = (
        "from pathlib import Path; from service.machine.sizing import count_workers; "
        "from service.settings import Settings; "
        f"print(count_workers(Settings(device={device!r}), Path({str(root)!r})))"
    )
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == min(limit, count_workers(CPU, tmp_path / "unlimited"))


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
