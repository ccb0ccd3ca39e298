"""How many workers serve and how many threads each has, if the settings give no number."""

from __future__ import annotations

from pathlib import Path

from service.machine.nvidia import find_driver, needed_cuda
from service.machine.resources import available_cores, memory_limit_bytes
from service.settings import Settings

MAX_WORKERS = 8  # by default; few services have traffic for more, and each worker takes memory
IDLE_BYTES = 200 * 2**20  # memory of a worker that runs the default models and decodes no image
BYTES_PER_PIXEL = 9  # memory that decoding takes, at most


def count_workers(settings: Settings, root: Path = Path("/")) -> int:
    """Return how many worker processes serve.

    If the settings give no number, a GPU has one worker. On the CPU, each core has one, but there
    are at most MAX_WORKERS, and each must have memory for the largest image. ``root`` is the folder
    that holds ``proc`` and ``sys``.
    """
    if settings.workers is not None:
        return settings.workers
    if settings.device == "cuda" or (settings.device == "auto" and _has_gpu()):
        return 1  # every worker would load the model into the GPU's memory again
    fitting, memory = MAX_WORKERS, memory_limit_bytes(root)
    if memory is not None:
        fitting = memory // (IDLE_BYTES + largest_image_bytes(settings))
    return max(1, min(available_cores(root), MAX_WORKERS, fitting))


def count_threads(settings: Settings, workers: int, root: Path = Path("/")) -> int:
    """Return how many threads each of ``workers`` processes has; a thread works on one image.

    If the settings give no number, it is the worker's share of the cores. It is smaller if the
    worker's memory cannot hold that many of the largest images. ``root`` is the folder that holds
    ``proc`` and ``sys``.
    """
    if settings.threads is not None:
        return settings.threads
    threads, memory = available_cores(root) // workers, memory_limit_bytes(root)
    if memory is not None:
        fitting = (memory // workers - IDLE_BYTES) // largest_image_bytes(settings)
        threads = min(threads, fitting)
    return max(1, threads)


def largest_image_bytes(settings: Settings) -> int:
    """Return how much memory the decoding of one image takes at most."""
    return settings.max_image_pixels * BYTES_PER_PIXEL


def _has_gpu() -> bool:
    """Return whether there is a GPU and an ONNX Runtime that may use it."""
    try:
        return needed_cuda() is not None and find_driver().gpus > 0
    except OSError:
        return False
