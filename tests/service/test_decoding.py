"""The threads that decode: several uploads at a time, each by itself."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from service.decoding import MAX_TOGETHER, SMALL_UPLOAD_BYTES, Decoder
from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging import read_image
from tests.service.images import encode, noise

SIZE = (20, 30)
MAX_PIXELS = 100_000


@pytest.mark.parametrize("threads", [1, 2])
def test_uploads_decoded_together_come_out_as_alone(threads: int) -> None:
    """Each of those that wait at once gets its own image, or fails by itself."""
    uploads = [encode(noise(100 + number, 150, number)) for number in range(2 * MAX_TOGETHER + 1)]
    uploads[1] = uploads[1][: len(uploads[1]) // 2]
    uploads[2] = encode(noise(400, 300))
    assert min(map(len, uploads)) > SMALL_UPLOAD_BYTES

    async def decode() -> list[object]:
        decoder = Decoder(threads, MAX_PIXELS)
        found = await asyncio.gather(*(decoder.decode(upload, SIZE) for upload in uploads), return_exceptions=True)
        decoder.close()
        return [each if isinstance(each, BaseException) else each.source.image for each in found]

    found = asyncio.run(decode())
    assert isinstance(found.pop(2), ImageTooLargeError)
    assert isinstance(found.pop(1), UnreadableImageError)
    del uploads[1:3]
    for image, upload in zip(found, uploads, strict=True):
        np.testing.assert_array_equal(image, read_image(upload, SIZE, MAX_PIXELS).image)


def test_time_in_the_queue_is_told() -> None:
    """What waits for those before it says for how long; together with its decoding it is no longer than all took."""

    async def decode() -> None:
        decoder, uploads = Decoder(1, MAX_PIXELS), [encode(noise(300, 300, number)) for number in range(3)]
        loop = asyncio.get_running_loop()
        started = loop.time()
        first, *_, last = await asyncio.gather(*(decoder.decode(upload, SIZE) for upload in uploads))
        assert last.queue_seconds >= first.queue_seconds + first.decode_seconds
        assert last.queue_seconds + last.decode_seconds <= loop.time() - started
        decoder.close()

    asyncio.run(decode())
