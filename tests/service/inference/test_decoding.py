"""The decoding threads: they hand over several uploads together, and each upload fails alone."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging.model_input import InputSpec, read_image
from service.inference.decoding import SMALL_UPLOAD_BYTES, Decoded, Decoder
from tests.service.images import encode, noise

GREY = InputSpec("item-on-black", (20, 30))
MAX_PIXELS = 3000 * 3000
SLOW = encode(noise(3000, 3000), "JPEG", quality=100, progressive=True)
FAST = [encode(noise(100 + number, 150, number)) for number in range(9)]
assert min(map(len, FAST)) > SMALL_UPLOAD_BYTES


def run(test: Callable[[Decoder], Coroutine[Any, Any, None]], threads: int = 1) -> None:
    """Run ``test`` with a new decoder."""

    async def with_decoder() -> None:
        decoder = Decoder(threads, MAX_PIXELS)
        try:
            await test(decoder)
        finally:
            decoder.close()

    asyncio.run(with_decoder())


def start(decoder: Decoder, uploads: Sequence[bytes]) -> list[asyncio.Task[Decoded]]:
    """Start to decode ``uploads``, all at the same time."""
    return [asyncio.create_task(decoder.decode(upload, GREY)) for upload in uploads]


def test_failure_keeps_no_image() -> None:
    """Errors hold no pixels: a request keeps its errors until its last image is done."""
    side = 2900
    cut = encode(Image.new("RGB", (side, side)))[:-100]

    async def test(decoder: Decoder) -> None:
        process = psutil.Process()
        before = process.memory_info().rss
        failures = await asyncio.gather(*start(decoder, [cut] * 10), return_exceptions=True)
        assert {type(failure) for failure in failures} == {UnreadableImageError}
        assert process.memory_info().rss - before < 3 * 4 * side * side

    run(test)


@pytest.mark.parametrize("threads", [1, 2])
def test_simultaneous_uploads_are_decoded_separately(threads: int) -> None:
    """Each upload gets its own image, or fails alone."""
    damaged, too_large = FAST[0][: len(FAST[0]) // 2], encode(noise(3001, 3000), compress_level=0)

    async def test(decoder: Decoder) -> None:
        tasks = start(decoder, [FAST[0], damaged, too_large, *FAST[1:]])
        first, second, third, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(second, UnreadableImageError)
        assert isinstance(third, ImageTooLargeError)
        for decoded, upload in zip([first, *others], FAST, strict=True):
            assert isinstance(decoded, Decoded)
            np.testing.assert_array_equal(
                decoded.source.image, read_image(upload, GREY, MAX_PIXELS).image
            )

    run(test, threads)


def test_tiny_grey_upload_needs_no_thread_beside_a_photo_model() -> None:
    """A grey upload of a grey model's size is decoded before other tasks run, unchanged."""
    pixels = noise(28, 28)
    photo, grey = InputSpec("letterbox", (160, 160)), InputSpec("item-on-black", (28, 28))

    async def test(decoder: Decoder) -> None:
        decoding = decoder.decode(encode(pixels), photo, [GREY, grey])
        with pytest.raises(StopIteration) as end:
            decoding.send(None)  # a decoding that waits for a thread would not end here
        decoded: Decoded = end.value.value
        assert decoded.source.spec == grey
        np.testing.assert_array_equal(decoded.source.image, pixels)

    run(test)


def test_slow_image_does_not_delay_earlier_ones() -> None:
    """A thread's decoded images are handed over while it still decodes the next one."""

    async def test(decoder: Decoder) -> None:
        tasks = start(decoder, [*FAST[:3], SLOW, FAST[3]])
        await asyncio.gather(*tasks[:3])
        assert not tasks[3].done()
        slow = await tasks[3]
        # Otherwise this test proves nothing.
        assert slow.decode_seconds > 2 * decoder.patience_seconds
        await tasks[4]

    run(test)


def test_fresh_image_keeps_the_decoder_from_being_stuck() -> None:
    """If both threads are busy, but one of them has just begun, the decoder is not stuck."""

    async def test(decoder: Decoder) -> None:
        first = start(decoder, [SLOW])
        await asyncio.sleep(0.2)
        second = start(decoder, [SLOW])
        async with asyncio.timeout(30):
            while not decoder.is_stuck(0):  # noqa: ASYNC110  until both are busy
                await asyncio.sleep(0)
        assert not decoder.is_stuck(0.15)
        assert not first[0].done()  # otherwise this test proves nothing
        await asyncio.gather(*first, *second)

    run(test, threads=2)


@pytest.mark.parametrize(("threads", "expected"), [(1, True), (2, False)])
def test_decoder_is_stuck_only_if_every_thread_is(threads: int, expected: bool) -> None:
    """One slow image makes a decoder of one thread count as stuck, but not one of two threads."""

    async def test(decoder: Decoder) -> None:
        (slow,) = start(decoder, [SLOW])
        async with asyncio.timeout(30):
            while decoder.depth:  # noqa: ASYNC110  a thread that starts sets no event
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert decoder.is_stuck(0.001) == expected
        assert not decoder.is_stuck(60)
        assert not slow.done()  # otherwise this test proves nothing
        await slow

    run(test, threads)


def test_upload_tells_how_long_it_waited_for_a_thread() -> None:
    """Of two uploads on one thread, the second waits at least while the first is decoded."""

    async def test(decoder: Decoder) -> None:
        first, second = await asyncio.gather(*start(decoder, [SLOW, FAST[0]]))
        assert second.queue_seconds > first.decode_seconds / 2 > second.decode_seconds
        assert first.queue_seconds < first.decode_seconds

    run(test)


def test_slow_image_does_not_occupy_other_threads() -> None:
    """While one thread decodes a slow image, the other thread decodes all other images."""

    async def test(decoder: Decoder) -> None:
        slow, *fast = start(decoder, [SLOW, *FAST])
        await asyncio.gather(*fast)
        assert not slow.done()
        await slow

    run(test, threads=2)


def test_cancelled_upload_is_not_decoded() -> None:
    """A cancelled upload leaves the queue, and no thread decodes it later."""

    async def test(decoder: Decoder) -> None:
        slow = await decoder.decode(SLOW, GREY)
        tasks = start(decoder, [SLOW] * 6)
        await asyncio.sleep(slow.decode_seconds / 2)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.001)
        assert decoder.depth == 0
        assert (await decoder.decode(FAST[0], GREY)).queue_seconds < 3 * slow.decode_seconds

    run(test)


def test_unexpected_error_fails_one_upload_only() -> None:
    """An unexpected error, here due to an invalid size, reaches the caller of its upload only."""

    async def test(decoder: Decoder) -> None:
        size: Any = (20,)
        impossible = asyncio.create_task(decoder.decode(FAST[0], replace(GREY, size=size)))
        answers = await asyncio.gather(
            impossible, *start(decoder, FAST[1:5]), return_exceptions=True
        )
        assert isinstance(answers[0], ValueError)
        assert all(isinstance(answer, Decoded) for answer in answers[1:])

    run(test)


def test_error_is_freed_with_its_last_reference() -> None:
    """The error of a damaged image is freed even if the garbage collector is off."""

    async def test(decoder: Decoder) -> None:
        errors: list[weakref.ref[BaseException]] = []
        for task in start(decoder, [FAST[0][:-1000], FAST[1][:-1000]]):
            try:
                await task
            except UnreadableImageError as error:
                errors.append(weakref.ref(error))
            del task
        await asyncio.sleep(0)
        assert [error() for error in errors] == [None, None]

    gc.disable()
    try:
        run(test)
    finally:
        gc.enable()


def test_waiting_is_measured() -> None:
    """Waiting uploads are counted. Queue time plus decoding time is an upload's total time."""

    async def test(decoder: Decoder) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        tasks = start(decoder, [SLOW, *FAST])
        await asyncio.sleep(0)
        assert decoder.depth >= len(FAST)
        slow, *_, last = await asyncio.gather(*tasks)
        # The thread may begin with the slow upload before the event loop starts the others.
        assert last.queue_seconds > slow.decode_seconds / 2
        assert last.queue_seconds + last.decode_seconds <= loop.time() - started
        assert not decoder.depth

    run(test)
