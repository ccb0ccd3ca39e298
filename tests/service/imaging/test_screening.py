"""JPEG and PNG files that are rejected by their bytes, before a decoder sees them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.errors import UnreadableImageError
from service.imaging import InputSpec, read_image
from service.imaging.screening import MAX_JPEG_SCANS, MAX_PIECES
from tests.service.images import encode, noise

SIZE = (28, 28)
GREY = InputSpec("item-on-black", SIZE)
MAX_PIXELS = 1_000_000


def test_scans_are_counted_whatever_a_jpeg_is_called() -> None:
    """A JPEG of too many scans is rejected, also as the first picture of a stereo photo (MPO)."""
    photo, stereo = BytesIO(), BytesIO()
    picture = Image.fromarray(noise(64, 64))
    picture.save(photo, "JPEG")
    picture.save(stereo, "MPO", save_all=True, append_images=[picture])
    for jpeg in (photo.getvalue(), stereo.getvalue()):
        assert read_image(jpeg, GREY, MAX_PIXELS).image.shape == SIZE
        start = jpeg.index(b"\xff\xda")
        scan = jpeg[start : jpeg.index(b"\xff\xd9")]
        with pytest.raises(UnreadableImageError, match="scans"):
            read_image(jpeg[:start] + scan * 101 + jpeg[start:], GREY, MAX_PIXELS)


def test_progressive_jpeg_of_too_many_scans_is_rejected() -> None:
    """The scans of a progressive JPEG are counted, even if they have no data."""
    jpeg = encode(noise(64, 64), "JPEG", progressive=True)
    start = jpeg.index(b"\xff\xda")
    end = jpeg.index(b"\xff", start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big"))
    with pytest.raises(UnreadableImageError, match="scans"):
        read_image(jpeg[:start] + jpeg[start:end] * 2000 + jpeg[start:], GREY, MAX_PIXELS)


def test_bytes_after_a_jpeg_are_not_scans() -> None:
    """A photo with a film after it, as some phones write it, is read whatever the film holds."""
    photo = encode(noise(64, 64), "JPEG")
    film = np.random.default_rng(0).bytes(100_000).replace(b"\xff", b"\xff\xda")
    assert film.count(b"\xff\xda") > MAX_JPEG_SCANS
    np.testing.assert_array_equal(
        read_image(photo + film, GREY, MAX_PIXELS).image, read_image(photo, GREY, MAX_PIXELS).image
    )


def test_jpeg_of_too_many_segments_is_rejected() -> None:
    """Pillow keeps an object for each segment, and appends each piece of EXIF to those before."""
    photo = encode(noise(64, 64), "JPEG")
    empty, exif = b"\xff\xe0\0\2", b"\xff\xe1\0\x09Exif\0\0x"
    for segments in (empty * 1000, exif * 10):
        assert read_image(photo[:2] + segments + photo[2:], GREY, MAX_PIXELS).image.shape == SIZE
    for segments in (empty * 100_000, exif * 100):
        with pytest.raises(UnreadableImageError, match="segments"):
            read_image(photo[:2] + segments + photo[2:], GREY, MAX_PIXELS)


def test_png_of_too_many_colour_profiles_is_rejected() -> None:
    """Pillow unpacks each colour profile of a PNG."""
    profile = zlib.compress(bytes(100_000))
    content = b"iCCPx\0\0" + profile
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    image = encode(noise(28, 28))
    assert read_image(image[:33] + chunk + image[33:], GREY, MAX_PIXELS).image.shape == SIZE
    with pytest.raises(UnreadableImageError, match="colour profiles"):
        read_image(image[:33] + chunk * (MAX_PIECES + 1) + image[33:], GREY, MAX_PIXELS)


def test_arithmetic_coding_is_rejected() -> None:
    """A JPEG in arithmetic coding is rare, takes a hundred times as long, and is rejected."""
    photo = encode(noise(64, 64), "JPEG")
    assert photo.count(b"\xff\xc0\0\x0b\x08") == 1
    with pytest.raises(UnreadableImageError, match="arithmetic"):
        read_image(photo.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc9\0\x0b\x08"), GREY, MAX_PIXELS)
