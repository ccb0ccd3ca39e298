"""How many cores and how much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.machine.resources import available_cores, core_quota, memory_limit_bytes


def write_machine(root: Path, files: dict[str, str]) -> Path:
    """Write ``files``, which maps paths to texts, into ``root``; return ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


V1 = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({}, None, None),
        ({"proc/self/cgroup": "0::/"}, None, None),
        (
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/cpu.max": "max 100000",
                "sys/fs/cgroup/memory.max": "max",
            },
            None,
            None,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5, None),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "536870912"}, None, 2**29),
        (
            {
                "proc/self/cgroup": "0::/outer/inner",
                "sys/fs/cgroup/outer/cpu.max": "50000 100000",
                "sys/fs/cgroup/outer/inner/cpu.max": "200000 100000",
                "sys/fs/cgroup/outer/inner/memory.max": "1000",
                "sys/fs/cgroup/outer/memory.max": "2000",
            },
            0.5,
            1000,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            None,
            None,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4096",
            },
            2.5,
            4096,
        ),
    ],
    ids=[
        "no groups",
        "no limits",
        "max",
        "v2 cores",
        "v2 memory",
        "v2 nested",
        "v1 no limits",
        "v1",
    ],
)
def test_smallest_limit_of_the_control_groups_applies(
    tmp_path: Path, files: dict[str, str], cores: float | None, memory: int | None
) -> None:
    """The smallest limit of the process's group and of all groups above it applies.

    That is so in both versions, inside and outside of a container.
    """
    root = write_machine(tmp_path, files)
    assert core_quota(root) == cores
    assert memory_limit_bytes(root) == memory


def test_cores_are_the_quota_rounded_up(tmp_path: Path) -> None:
    """A quota below the machine's cores is rounded up; a larger quota changes nothing."""
    machine = available_cores(tmp_path)
    assert machine == len(os.sched_getaffinity(0))
    for quota, cores in ((1000, 1), (100_000, 1), (100_001, min(2, machine)), (10**9, machine)):
        root = write_machine(
            tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{quota} 100000"}
        )
        assert available_cores(root) == cores
