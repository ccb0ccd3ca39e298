"""How many cores and how much memory this process may use.

The limits are its CPU affinity and Linux' control groups, version 1 or 2.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

NO_LIMIT_BYTES = 2**60  # in version 1, "no limit" is a number larger than any real limit


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process can keep busy.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    # At the end of its quota a process stops until the next period, so more threads only wait.
    return min(cores, math.ceil(core_quota(root) or cores))


def core_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the control groups allow; None without a limit.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    limits = [tuple(text.split()) for text in _limits(root, "", "cpu.max")]
    quotas, periods = (_limits(root, "cpu", f"cpu.cfs_{part}_us") for part in ("quota", "period"))
    limits += zip(quotas, periods, strict=True)
    cores = [int(quota) / int(period) for quota, period in limits if quota not in ("max", "-1")]
    return min(cores, default=None)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory the control groups allow; None without a limit.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    texts = [*_limits(root, "", "memory.max"), *_limits(root, "memory", "memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text != "max"]
    return min((limit for limit in limits if limit < NO_LIMIT_BYTES), default=None)


def _limits(root: Path, controller: str, file: str) -> Iterator[str]:
    """Read ``file`` of this process's control group and of all groups above; the least holds."""
    top = root / "sys/fs/cgroup" / controller
    for group in _groups(root, controller):
        # In a container, the process's own group may be mounted as the top one, while
        # /proc/self/cgroup still names its path outside of the container.
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
