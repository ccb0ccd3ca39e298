"""Own how many workers serve, and how many threads each has, where the settings do not say."""

from __future__ import annotations

from pathlib import Path

from service.machine.nvidia import find_driver
from service.machine.resources import available_cores, memory_limit_bytes
from service.settings import Settings

MAX_WORKERS = 8  # by default: more would spend memory on what few services have the traffic for
IDLE_BYTES = 150 * 2**20  # of memory, that a worker has without an image
BYTES_PER_PIXEL = 9  # of memory, that decoding an image takes at most


def count_workers(settings: Settings, root: Path = Path("/")) -> int:
    """Return how many processes serve: on the CPU one a core, if each has memory for the largest image; one on a GPU.

    ``root`` is the folder that ``proc`` and ``sys`` are in.
    """
    if settings.workers is not None:
        return settings.workers
    if settings.device == "cuda" or (settings.device == "auto" and _has_gpu()):
        return 1  # each would need the model, and memory of its own, on the GPU
    memory = memory_limit_bytes(root)
    held = MAX_WORKERS if memory is None else memory // (IDLE_BYTES + largest_image_bytes(settings))
    return max(1, min(available_cores(root), MAX_WORKERS, held))


def count_threads(settings: Settings, workers: int, root: Path = Path("/")) -> int:
    """Return how many images each of ``workers`` processes decodes, and infers, at a time.

    Where the settings do not say, that is its share of the cores, or of the largest images that there is memory for.
    ``root`` is the folder that ``proc`` and ``sys`` are in.
    """
    if settings.threads is not None:
        return settings.threads
    cores, memory = available_cores(root) // workers, memory_limit_bytes(root)
    held = (
        cores
        if memory is None
        else (memory // workers - IDLE_BYTES) // largest_image_bytes(settings)
    )
    return max(1, min(cores, held))


def largest_image_bytes(settings: Settings) -> int:
    """Return how much memory the decoding of an image may take."""
    return settings.max_image_pixels * BYTES_PER_PIXEL


def _has_gpu() -> bool:
    try:
        return find_driver().gpus > 0
    except OSError:
        return False
