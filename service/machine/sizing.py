"""How many workers serve and how many threads each has, if the settings give no number."""

from __future__ import annotations

from pathlib import Path

from service.machine.nvidia import Driver, find_driver, needed_cuda
from service.machine.resources import available_cores, memory_limit_bytes
from service.settings import Settings

MAX_WORKERS = 8  # by default; few services have traffic for more, and each worker takes memory
IDLE_BYTES = 200 * 2**20  # memory of a worker that runs the default models and decodes no image
CUDA_BYTES = 2**30  # the same with CUDA's libraries, not measured
GPU_BYTES = 2 * 2**30  # of a GPU's memory; a worker with one model took 0.8 to 1.2 GiB
BYTES_PER_PIXEL = 9  # memory that decoding takes, at most


def count_workers(settings: Settings, root: Path = Path("/")) -> int:
    """Return how many worker processes serve.

    If the settings give no number, each core has one worker, on a GPU too: decoding keeps a core
    busy. There are at most MAX_WORKERS. Each must have memory for the largest image, and GPU_BYTES
    of a GPU's memory. ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    if settings.workers is not None:
        return settings.workers
    gpu, memory = _find_gpu(settings), memory_limit_bytes(root)
    limits = [available_cores(root), MAX_WORKERS]
    if gpu is not None:
        limits.append(gpu.memory_bytes // GPU_BYTES)
    if memory is not None:
        limits.append(memory // (idle_bytes(settings) + largest_image_bytes(settings)))
    return max(1, min(limits))


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
        fitting = (memory // workers - idle_bytes(settings)) // largest_image_bytes(settings)
        threads = min(threads, fitting)
    return max(1, threads)


def largest_image_bytes(settings: Settings) -> int:
    """Return how much memory the decoding of one image takes at most."""
    return settings.max_image_pixels * BYTES_PER_PIXEL


def idle_bytes(settings: Settings) -> int:
    """Return the memory of a worker that runs the default models and decodes no image."""
    return IDLE_BYTES if _find_gpu(settings) is None else CUDA_BYTES


def _find_gpu(settings: Settings) -> Driver | None:
    """Return the driver of a GPU that the service may use; None if there is none."""
    if settings.device == "cpu":
        return None
    try:
        driver = find_driver()
    except OSError:
        return None
    return driver if driver.gpus and needed_cuda() is not None else None
