"""Own the threads that decode uploads, and which uploads take one together. Must know nothing of HTTP or of models."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service.batching import Batcher
from service.errors import ImageError, ImageTooLargeError
from service.imaging import ModelInput, read_image

# What is this small, and no larger than the model's input, is decoded in less time than a hop to a thread takes;
# at worst, by text that is compressed a thousand times, in some 10 ms.
SMALL_UPLOAD_BYTES = 4 * 1024
MAX_TOGETHER = 4  # of those that wait: one hop for all of them, and the model gets them in one batch


@dataclass(frozen=True)
class Decoded:
    """An upload as the model's input, how long it waited for a thread, and how long decoding took."""

    source: ModelInput
    queue_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class _Upload:
    data: bytes
    size: tuple[int, int]
    since: float


class Decoder:
    """Turns uploads of at most ``max_pixels`` into a model's inputs, on ``threads`` threads."""

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._threads = threads
        self._max_pixels = max_pixels
        self._at_work_since: dict[object, float] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._batcher = Batcher[_Upload, Decoded | ImageError](
            self._decode_on_thread, max_batch=MAX_TOGETHER, slots=threads
        )

    @property
    def at_a_time(self) -> int:
        """How many uploads of a request to bring at a time, so that others' wait for a few of them and not for all."""
        return MAX_TOGETHER * self._threads

    @property
    def is_at_work(self) -> bool:
        """Whether a thread is at an image; no thread can be stopped."""
        return bool(self._at_work_since)

    def is_stuck(self, seconds: float) -> bool:
        """Whether every thread has been at one image for longer than ``seconds``."""
        since = list(self._at_work_since.values())
        return len(since) >= self._threads and time.monotonic() - max(since) > seconds

    async def decode(self, data: bytes, size: tuple[int, int]) -> Decoded:
        """Turn the bytes of an image into the input of a model whose images have ``size`` (height, width).

        Raises:
            ImageError: See ``read_image``.
        """
        upload = _Upload(data, size, time.perf_counter())
        if len(data) <= SMALL_UPLOAD_BYTES:
            try:
                return self._decode(upload, min(math.prod(size), self._max_pixels))
            except ImageTooLargeError:
                pass  # for this thread, which would do nothing else meanwhile; only its header was read
        decoded = (await self._batcher.submit(upload)).answer
        if isinstance(decoded, ImageError):
            raise decoded
        return decoded

    def close(self) -> None:
        """Stop the threads after what they are at, without waiting for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _decode_on_thread(self, uploads: Sequence[_Upload]) -> Sequence[Decoded | ImageError]:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._decode_all, uploads)

    def _decode_all(self, uploads: Sequence[_Upload]) -> list[Decoded | ImageError]:
        decoded: list[Decoded | ImageError] = []
        for upload in uploads:
            try:
                decoded.append(self._decode(upload, self._max_pixels))
            except ImageError as error:
                decoded.append(error)
        return decoded

    def _decode(self, upload: _Upload, max_pixels: int) -> Decoded:
        started = time.perf_counter()
        token = object()
        self._at_work_since[token] = time.monotonic()
        try:
            source = read_image(upload.data, upload.size, max_pixels)
        finally:
            del self._at_work_since[token]
        return Decoded(source, started - upload.since, time.perf_counter() - started)
