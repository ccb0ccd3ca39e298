"""Own the threads that decode uploads, and the queue before them. Must know nothing of HTTP or of models."""

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

# What is this small, and no larger than the model's input, is decoded in less time than a hop to a thread takes;
# at worst, by text that is compressed a thousand times, in some 10 ms.
SMALL_UPLOAD_BYTES = 4 * 1024
# A thread decodes several uploads, one after the other, before it hands them over: there are fewer hops then, and the
# model gets them in one batch. None of them waits for longer than this for those after it.
MAX_TOGETHER = 4
PATIENCE_SECONDS = 0.02


@dataclass(frozen=True)
class Decoded:
    """An upload as the model's input, how long it waited before and after its decoding, and how long that took."""

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
    """Turns uploads of at most ``max_pixels`` into a model's inputs on ``threads`` threads, oldest first.

    An upload whose caller was cancelled while it waited is never decoded.
    """

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._threads = self._free_threads = threads
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._waiting: deque[_WaitingUpload] = deque()
        self._done: deque[tuple[_WaitingUpload, ModelInput | Exception, float]] = deque()
        self._at_work_since: dict[object, float] = {}

    @property
    def depth(self) -> int:
        """How many uploads wait."""
        return len(self._waiting)

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
        since = time.perf_counter()
        if len(data) <= SMALL_UPLOAD_BYTES:
            try:
                source = read_image(data, size, min(math.prod(size), self._max_pixels))
                return Decoded(source, 0.0, time.perf_counter() - since)
            except ImageTooLargeError:
                pass  # for this thread, which would do nothing else meanwhile; only its header was read
        return await self._enqueue(data, size, since)

    def close(self) -> None:
        """Stop the threads after what they are at, without waiting for it."""
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # An error keeps the frames that it went through, those that called them, and so the image. None of them may hold
    # the error or its future, or only the garbage collector, which runs seldom, would free all that.

    def _enqueue(self, data: bytes, size: tuple[int, int], since: float) -> asyncio.Future[Decoded]:
        upload = _WaitingUpload(data, size, since, asyncio.get_running_loop().create_future())
        upload.decoded.add_done_callback(partial(self._forget, upload))
        self._waiting.append(upload)
        self._start()
        return upload.decoded

    def _forget(self, upload: _WaitingUpload, decoded: asyncio.Future[Decoded]) -> None:
        if decoded.cancelled():
            with suppress(ValueError):  # a thread has taken it
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
        """Decode some of what waits, on a thread."""
        token, began = object(), time.monotonic()
        try:
            for _ in range(MAX_TOGETHER):
                self._at_work_since[token] = time.monotonic()
                self._decode_next()
                if not self._waiting or time.monotonic() - began > PATIENCE_SECONDS:
                    break
        finally:
            del self._at_work_since[token]

    def _decode_next(self) -> None:
        try:
            upload = self._waiting.popleft()
        except IndexError:  # another thread was sooner
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
            # What it keeps of where it came from holds the image, and a batch keeps it until its last image is done.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception as error:  # whatever it is, it is this upload's alone
            return error
