"""Own how many cores and bytes this process may use: by its affinity, and by Linux' control groups, version 1 or 2."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

NO_LIMIT_BYTES = 2**60  # version 1 says "no limit" with a number above all real ones


def available_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may keep busy; ``root`` is the folder that ``proc`` and ``sys`` are in."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    # Past a quota all threads of a process are stopped until the next period, so more threads only answer later.
    return min(cores, math.ceil(core_quota(root) or cores))


def core_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' worth of time this process may use; None if there is no limit, or no control group.

    ``root`` is the folder that ``proc`` and ``sys`` are in.
    """
    limits = [tuple(text.split()) for text in _limits(root, "", "cpu.max")]
    quotas, periods = (_limits(root, "cpu", f"cpu.cfs_{part}_us") for part in ("quota", "period"))
    limits += zip(quotas, periods, strict=True)
    return min(
        (int(quota) / int(period) for quota, period in limits if quota not in ("max", "-1")),
        default=None,
    )


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process may use; None if there is no limit, or no control group.

    ``root`` is the folder that ``proc`` and ``sys`` are in.
    """
    limits = [*_limits(root, "", "memory.max"), *_limits(root, "memory", "memory.limit_in_bytes")]
    return min(
        (int(text) for text in limits if text != "max" and int(text) < NO_LIMIT_BYTES), default=None
    )


def _limits(root: Path, controller: str, file: str) -> Iterator[str]:
    """Read ``file`` in the control group of this process and in all above it; the least of their limits holds."""
    top = root / "sys/fs/cgroup" / controller
    for group in _groups(root, controller):
        # A container may see its own group as the top one, under the path that it has outside.
        for folder in dict.fromkeys(
            (top / group, *(top / parent for parent in Path(group).parents), top)
        ):
            try:
                yield (folder / file).read_text().strip()
            except OSError:
                continue


def _groups(root: Path, controller: str) -> Iterator[str]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" in version 2, "4:cpu,cpuacct:/path" in version 1
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            yield path.lstrip("/")
