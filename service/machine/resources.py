"""How many cores and how much memory this process may use.

The limits come from the CPU affinity and from Linux control groups, version 1 or 2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

NO_LIMIT_BYTES = 2**60  # no real limit is so large; version 1 reports "no limit" as more


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process can keep busy.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    # A process that has used up its quota stops until the next period, so more threads would only
    # wait.
    return min(cores, math.ceil(core_quota(root) or cores))


def core_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU quota of the control groups, in cores; None without a limit.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    limits = [tuple(text.split()) for text in _limits(root, "", "cpu.max")]
    quotas, periods = (_limits(root, "cpu", f"cpu.cfs_{part}_us") for part in ("quota", "period"))
    limits += zip(quotas, periods, strict=True)
    cores = [int(quota) / int(period) for quota, period in limits if quota not in ("max", "-1")]
    return min(cores, default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory limit of the control groups, in bytes; None without a limit.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    texts = [*_limits(root, "", "memory.max"), *_limits(root, "memory", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text != "max"]
    return min((limit for limit in limits if limit < NO_LIMIT_BYTES), default=None)


def _limits(root: Path, controller: str, file: str) -> Iterator[str]:
    """Read ``file`` of this process's control group and of all groups above it.

    The smallest of these limits applies.
    """
    top = root / "sys/fs/cgroup" / controller
    for group in _groups(root, controller):
        # In a container, ``top`` may be the process's own group, although /proc/self/cgroup still
        # names the group's path outside of the container.
        for path in dict.fromkeys((group, *group.parents, Path())):
            try:
                yield (top / path / file).read_text().strip()
            except OSError:
                continue


def _groups(root: Path, controller: str) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            yield Path(path.lstrip("/"))
