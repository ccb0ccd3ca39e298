"""Own how many workers serve, and how many threads each has, where the settings do not say."""

from __future__ import annotations

from pathlib import Path

from service.nvidia import find_driver
from service.resources import available_cores, memory_limit_bytes
from service.settings import Settings

MAX_WORKERS = 8  # by default: more would spend memory on what few services have the traffic for
WORKER_BYTES = 512 * 2**20  # of memory, while it decodes one of the largest images; some 150 of it when idle


def count_workers(settings: Settings, root: Path = Path("/")) -> int:
    """Return how many processes serve: on the CPU one a core, as far as memory goes; one where there is a GPU.

    ``root`` is the folder that ``proc`` and ``sys`` are in.
    """
    if settings.workers is not None:
        return settings.workers
    if settings.device == "cuda" or (settings.device == "auto" and _has_gpu()):
        return 1  # each would need the model, and memory of its own, on the GPU
    memory = memory_limit_bytes(root)
    held = MAX_WORKERS if memory is None else memory // WORKER_BYTES
    return max(1, min(available_cores(root), MAX_WORKERS, held))


def count_threads(settings: Settings, workers: int, root: Path = Path("/")) -> int:
    """Return how many images each of ``workers`` processes decodes, and infers, at a time: its share of the cores.

    ``root`` is the folder that ``proc`` and ``sys`` are in.
    """
    return settings.threads or max(1, available_cores(root) // workers)


def _has_gpu() -> bool:
    try:
        return find_driver().gpus > 0
    except OSError:
        return False
