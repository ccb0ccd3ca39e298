"""GIF files: what their first frame needs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from service.imaging import read_picture
from service.imaging.gif import strip_gif
from tests.service.images import encode, fault, noise

MAX_PIXELS = 1_000_000
HEADER_BYTES = 13 + 3 * 256
PHOTO = encode(noise(20, 30), "GIF")


@pytest.mark.parametrize(
    "extensions",
    [
        b"!\xff\0",
        b"!\xff\x0bNETSCAPE2.0\0",
        b"!\xff\x02ab\0",
        b"!\xfe" + (b"\xff" + b"x" * 255) * 10_000 + b"\0",
        b"!\xfe" + b"\1x" * 200_000 + b"\0",
        b"!\xf9\1\1\0",
        b"!\x01\x0c" + bytes(12) + b"\2ab\0",
        b"!\x77\2ab\0" * 1000,
    ],
    ids=lambda extensions: repr(extensions[:12]),
)
def test_extension_never_matters(extensions: bytes) -> None:
    """Comments, texts and data of applications may be damaged, large and many."""
    data = PHOTO[:HEADER_BYTES] + extensions + PHOTO[HEADER_BYTES:]
    started = time.perf_counter()
    seen, expected = (np.asarray(read_picture(file, MAX_PIXELS).image) for file in (data, PHOTO))
    np.testing.assert_array_equal(seen, expected)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "extensions",
    [
        b"!\xfe\0",
        b"!\xff\1x\0",
        b"!\xf9\4\0\0\0\0\0",
        b"!\xf9\4\0\0\0\0\1x\0",
        b"!\xf9\4\0\0\0\0\0!\xfe\0",
        b"\0",
        b"x!\xfe\0",
    ],
    ids=repr,
)
def test_very_many_short_extensions_are_skipped_at_once(extensions: bytes) -> None:
    """Millions of extensions take no more time than a large photo; the last control is kept."""
    transparent = encode(Image.new("P", (20, 30), 3), "GIF", transparency=3)
    start = transparent.index(b"!\xf9\4")
    many = extensions * (4_000_000 // len(extensions))
    started = time.process_time()
    picture = read_picture(transparent[:start] + many + transparent[start:], MAX_PIXELS)
    assert time.process_time() - started < 2
    assert picture.is_cut_out
    assert (np.asarray(picture.image) == 255).all()


def test_transparency_is_kept() -> None:
    """The extension that makes a colour transparent is kept."""
    data = encode(Image.new("P", (20, 30), 3), "GIF", transparency=3)
    assert (np.asarray(read_picture(data, MAX_PIXELS).image) == 255).all()


@pytest.mark.parametrize("end", [0, 6, 10, 11, 13, 500, HEADER_BYTES, HEADER_BYTES + 1])
def test_beginning_of_a_file_is_passed_on(end: int) -> None:
    """Of a file that ends before its first frame, nothing is added or read twice."""
    assert strip_gif(PHOTO[:end]).data == PHOTO[:end]


def test_outside_of_the_first_frame_nothing_is_shown() -> None:
    """A first frame smaller than the picture lies on white, as on a page of a browser."""
    place = PHOTO.index(b",\0\0\0\0")
    frame = PHOTO[:place] + b",\x04\0\x03\0" + PHOTO[place + 5 :]
    height, width = 40, 50
    data = frame[:6] + bytes([width, 0, height, 0]) + frame[10:]
    picture = read_picture(data, MAX_PIXELS)
    expected = np.full((height, width), 255)
    expected[3:23, 4:34] = np.asarray(read_picture(PHOTO, MAX_PIXELS).image.convert("L"))
    assert picture.is_cut_out
    np.testing.assert_array_equal(np.asarray(picture.image.convert("L")), expected)


def test_first_frame_of_an_animation_is_read() -> None:
    """Later frames may be missing."""
    animation = fault("animated.gif")
    first = read_picture(animation, MAX_PIXELS).image
    cut = read_picture(animation[: len(animation) * 2 // 3], MAX_PIXELS).image
    np.testing.assert_array_equal(np.asarray(first), np.asarray(cut))
