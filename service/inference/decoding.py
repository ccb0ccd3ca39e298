"""The threads that decode uploads, and their queue. Knows nothing about HTTP or models."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from service.errors import ImageError, ImageTooLargeError
from service.imaging.model_input import ModelInput, read_image

# Uploads this small that have no more pixels than the model's input decode faster than a thread
# hop, so the event loop decodes them. The worst, text compressed a thousand times, takes 10 ms.
SMALL_UPLOAD_BYTES = 4 * 1024
# A thread decodes several uploads before it hands them over: this takes fewer thread hops, and the
# model gets the images in one batch. A decoded image waits at most PATIENCE_SECONDS for the others.
MAX_TOGETHER = 4
PATIENCE_SECONDS = 0.02


@dataclass(frozen=True)
class Decoded:
    """An upload as the model's input, the seconds that it waited, and those of its decoding."""

    source: ModelInput
    queue_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _WaitingUpload:
    data: bytes
    size: tuple[int, int]
    since: float
    decoded: asyncio.Future[Decoded]


class Decoder:
    """Decodes uploads of at most ``max_pixels`` on ``threads`` threads, oldest first.

    An upload whose caller is cancelled while it waits is never decoded.
    """

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._threads = self._free_threads = threads
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._waiting: deque[_WaitingUpload] = deque()
        self._done: deque[tuple[_WaitingUpload, ModelInput | Exception, float]] = deque()
        self._decoding_since: dict[object, float] = {}

    @property
    def depth(self) -> int:
        """Number of uploads that wait."""
        return len(self._waiting)

    @property
    def is_decoding(self) -> bool:
        """Whether a thread decodes an image; no thread can be stopped."""
        return bool(self._decoding_since)

    def is_stuck(self, seconds: float) -> bool:
        """Whether every thread has decoded one image for longer than ``seconds``."""
        since = list(self._decoding_since.values())
        return len(since) >= self._threads and time.monotonic() - max(since) > seconds

    async def decode(self, data: bytes, size: tuple[int, int]) -> Decoded:
        """Turn the bytes of an image into the input of a model that takes ``size`` (height, width).

        Raises:
            ImageError: See ``read_image``.
        """
        since = time.perf_counter()
        if len(data) <= SMALL_UPLOAD_BYTES:
            try:
                source = read_image(data, size, min(math.prod(size), self._max_pixels))
                return Decoded(source, 0.0, time.perf_counter() - since)
            except ImageTooLargeError:
                pass  # only its header was read; a thread decodes it
        return await self._enqueue(data, size, since)

    def close(self) -> None:
        """Let the threads stop after their current image, without waiting for them."""
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # An error refers to the frames that it went through, and so to the image. No such frame may
    # refer to the error or its future: the garbage collector, which frees cycles, runs rarely.

    def _enqueue(self, data: bytes, size: tuple[int, int], since: float) -> asyncio.Future[Decoded]:
        upload = _WaitingUpload(data, size, since, asyncio.get_running_loop().create_future())
        upload.decoded.add_done_callback(partial(self._forget, upload))
        self._waiting.append(upload)
        self._start()
        return upload.decoded

    def _forget(self, upload: _WaitingUpload, decoded: asyncio.Future[Decoded]) -> None:
        if decoded.cancelled():
            with suppress(ValueError):  # a thread has already taken it
                self._waiting.remove(upload)

    def _start(self) -> None:
        if not self._waiting or not self._free_threads:
            return
        self._free_threads -= 1
        loop = asyncio.get_running_loop()
        timer = loop.call_later(PATIENCE_SECONDS, self._hand_over)
        loop.run_in_executor(self._pool, self._work).add_done_callback(partial(self._end, timer))

    def _end(self, timer: asyncio.TimerHandle, _: asyncio.Future[None]) -> None:
        timer.cancel()
        self._free_threads += 1
        self._hand_over()
        self._start()

    def _hand_over(self) -> None:
        while self._done:
            upload, result, decode_seconds = self._done.popleft()
            if upload.decoded.done():
                continue
            if isinstance(result, Exception):
                upload.decoded.set_exception(result)
            else:
                waited = time.perf_counter() - upload.since - decode_seconds
                upload.decoded.set_result(Decoded(result, waited, decode_seconds))

    def _work(self) -> None:
        """Decode some of the waiting uploads, on a thread."""
        token, began = object(), time.monotonic()
        try:
            for _ in range(MAX_TOGETHER):
                self._decoding_since[token] = time.monotonic()
                self._decode_next()
                if not self._waiting or time.monotonic() - began > PATIENCE_SECONDS:
                    break
        finally:
            del self._decoding_since[token]

    def _decode_next(self) -> None:
        try:
            upload = self._waiting.popleft()
        except IndexError:  # another thread was faster
            return
        if upload.decoded.done():
            return
        started = time.perf_counter()
        result = self._read(upload.data, upload.size)
        self._done.append((upload, result, time.perf_counter() - started))
        del upload, result

    def _read(self, data: bytes, size: tuple[int, int]) -> ModelInput | Exception:
        try:
            return read_image(data, size, self._max_pixels)
        except ImageError as error:
            # Its traceback and cause refer to the image, and a batch keeps the error to the end.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception as error:  # any error fails this upload only
            return error
