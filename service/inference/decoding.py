"""The threads that decode uploads, and their queue. Knows nothing about HTTP or models."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from service.errors import ImageError, ImageTooLargeError
from service.imaging.model_input import InputSpec, ModelInput, read_image

# An upload of at most this size, with at most as many pixels as a model's input, usually decodes
# faster than a thread hop, so the event loop decodes it.
SMALL_UPLOAD_BYTES = 4 * 1024
# A thread decodes up to MAX_TOGETHER uploads before it hands them to the event loop: this takes
# fewer thread hops, and the model gets the images in one batch. A decoded image waits at most
# ``Decoder.patience_seconds`` for the others.
MAX_TOGETHER = 4


@dataclass(frozen=True)
class Decoded:
    """A decoded upload, with the seconds that it waited and the seconds that decoding took."""

    source: ModelInput
    queue_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class _WaitingUpload:
    data: bytes
    spec: InputSpec
    exact: Sequence[InputSpec]
    since: float
    decoded: asyncio.Future[Decoded]


class Decoder:
    """Decodes uploads of at most ``max_pixels`` on ``threads`` threads, oldest first.

    A waiting upload whose caller is cancelled is never decoded.
    """

    patience_seconds = 0.02

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._threads = self._free_threads = threads
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._waiting: deque[_WaitingUpload] = deque()
        self._done: deque[tuple[_WaitingUpload, ModelInput | Exception, float]] = deque()
        self._decoding_since: dict[object, float] = {}

    @property
    def depth(self) -> int:
        """Number of waiting uploads."""
        return len(self._waiting)

    def is_stuck(self, seconds: float) -> bool:
        """Whether every thread has been busy with one image for longer than ``seconds``."""
        since = list(self._decoding_since.values())
        return len(since) >= self._threads and time.monotonic() - max(since) > seconds

    async def decode(
        self, data: bytes, spec: InputSpec, exact: Sequence[InputSpec] = ()
    ) -> Decoded:
        """Turn an uploaded image into the input ``spec``, or into one of ``exact`` if it fits.

        Raises:
            ImageError: See ``read_image``.
        """
        since = time.perf_counter()
        if len(data) <= SMALL_UPLOAD_BYTES:
            try:
                pixels = max(math.prod(each.size) for each in (spec, *exact))
                source = read_image(data, spec, min(pixels, self._max_pixels), exact)
                return Decoded(source, 0.0, time.perf_counter() - since)
            except ImageTooLargeError:
                pass  # only the header was read; a thread decodes the image
        return await self._enqueue(data, spec, exact, since)

    def close(self) -> None:
        """Let the threads stop after their current image, without waiting for them."""
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # The traceback of an error refers to the frames of the functions below and of their callers.
    # These frames refer to the image. None of them may refer to the error or to its future: such a
    # reference cycle keeps the image until the garbage collector runs, and it runs rarely.

    def _enqueue(
        self, data: bytes, spec: InputSpec, exact: Sequence[InputSpec], since: float
    ) -> asyncio.Future[Decoded]:
        decoded = asyncio.get_running_loop().create_future()
        upload = _WaitingUpload(data, spec, exact, since, decoded)
        upload.decoded.add_done_callback(partial(self._forget, upload))
        self._waiting.append(upload)
        self._start()
        return upload.decoded

    def _forget(self, upload: _WaitingUpload, decoded: asyncio.Future[Decoded]) -> None:
        if decoded.cancelled():
            with suppress(ValueError):  # a thread has already taken the upload
                self._waiting.remove(upload)

    def _start(self) -> None:
        if not self._waiting or not self._free_threads:
            return
        self._free_threads -= 1
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self.patience_seconds, self._hand_over)
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
        """Decode up to ``MAX_TOGETHER`` waiting uploads. Runs on a thread of the pool."""
        token, began = object(), time.monotonic()
        try:
            for _ in range(MAX_TOGETHER):
                self._decoding_since[token] = time.monotonic()
                self._decode_next()
                if not self._waiting or time.monotonic() - began > self.patience_seconds:
                    break
        finally:
            del self._decoding_since[token]

    def _decode_next(self) -> None:
        try:
            upload = self._waiting.popleft()
        except IndexError:  # another thread has taken the last upload
            return
        if upload.decoded.done():
            return
        started = time.perf_counter()
        result = self._read(upload)
        self._done.append((upload, result, time.perf_counter() - started))
        del upload, result  # the traceback of an error keeps this frame

    def _read(self, upload: _WaitingUpload) -> ModelInput | Exception:
        try:
            return read_image(upload.data, upload.spec, self._max_pixels, upload.exact)
        except ImageError as error:
            # The traceback and the cause refer to the image. A request with several images keeps
            # the error until its last image is done.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        except Exception as error:  # any error fails this upload only
            return error
