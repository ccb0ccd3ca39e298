"""BMP files of kinds that Pillow lacks. test_browser.py compares many kinds with Chromium."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging import read_picture
from service.imaging.bmp import MAX_PIECES, rewrite_bmp
from tests.service.images import FAULTS

MAX_PIXELS = 1_000_000
WHOLE = FAULTS / "whole"


def in_runs(width: int, height: int, runs: bytes, bits: int = 8) -> bytes:
    """Write a BMP of ``runs``, with a palette of greys."""
    compression = {8: 1, 4: 2, 24: 4}[bits]
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    count = 2**bits if bits <= 8 else 0
    palette = b"".join(bytes([level * 255 // (count - 1)] * 3 + [0]) for level in range(count))
    start = 14 + 40 + len(palette)
    return struct.pack("<2sIII", b"BM", start + len(runs), 0, start) + header + palette + runs


def pixels_of(data: bytes) -> np.ndarray:
    """Read a grey file, uint8 ``[height, width]``."""
    return np.asarray(read_picture(data, MAX_PIXELS).image.convert("L"))


def test_transparent_parts_are_white() -> None:
    """The opacity of pixels of 16 and 32 bits counts."""
    for name in ("rgb16-4444.bmp", "rgb32-alpha-bgr.bmp"):
        data = bytearray((WHOLE / name).read_bytes())
        start = int.from_bytes(data[10:14], "little")
        size = 2 if name.startswith("rgb16") else 4
        data[start + size - 1] &= 0x0F if size == 2 else 0
        picture = read_picture(bytes(data), MAX_PIXELS)
        assert picture.is_cut_out
        assert picture.image.getpixel((0, picture.image.height - 1)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("runs", "rows"),
    [
        (b"\4\1\0\0\4\2\0\1", [[2, 2, 2, 2], [1, 1, 1, 1]]),
        (b"\xff\1\3\2\0\0\4\2\0\1", [[2, 2, 2, 2], [1, 1, 1, 1]]),
        (b"\1\1\0\3\2\3\4\0\0\0\4\5\0\1", [[5, 5, 5, 5], [1, 2, 3, 4]]),
        (b"\2\1\0\2\1\1\1\7\0\1", [[0, 0, 0, 7], [1, 1, 0, 0]]),
        (b"\4\1\0\0\4\2", [[2, 2, 2, 2], [1, 1, 1, 1]]),
        (b"\4\1\0\1", [[0, 0, 0, 0], [1, 1, 1, 1]]),
    ],
    ids=["runs", "too long", "single", "jump", "no end", "early end"],
)
def test_runs_are_drawn(runs: bytes, rows: list[list[int]]) -> None:
    """Runs end with their row, jumps leave pixels out, and these have the first colour."""
    np.testing.assert_array_equal(pixels_of(in_runs(4, 2, runs)), rows)


def test_runs_of_four_bits_alternate() -> None:
    """A run of four bits repeats two pixels."""
    runs = b"\5\x1f\0\0\0\5\x12\x34\x50\0\0\1"
    expected = [[1, 2, 3, 4, 5], [1, 15, 1, 15, 1]]
    np.testing.assert_array_equal(pixels_of(in_runs(5, 2, runs, 4)), 17 * np.array(expected))


@pytest.mark.parametrize("name", ["runs8.bmp", "runs4.bmp", "palette2.bmp", "rgb16-444.bmp"])
def test_file_that_is_cut_off_is_rejected(name: str) -> None:
    """The reason names the format."""
    data = (WHOLE / name).read_bytes()
    for end in (len(data) - 100, len(data) // 2 + 100):
        with pytest.raises(UnreadableImageError, match=r"^the BMP image .* incomplete"):
            read_picture(data[:end], MAX_PIXELS)


@pytest.mark.parametrize(
    ("compression", "header_bytes", "what"),
    [(4, 40, "holds a JPEG"), (5, 40, "holds a PNG"), (4, 64, "way of OS/2")],
)
def test_compression_that_is_not_read_is_named(
    compression: int, header_bytes: int, what: str
) -> None:
    """The reason says how the file is compressed."""
    data = bytearray((WHOLE / "plain.bmp").read_bytes() + bytes(100))
    data[14], data[30] = header_bytes, compression
    with pytest.raises(UnreadableImageError, match=f"the BMP image .*{what}"):
        read_picture(bytes(data), MAX_PIXELS)


def test_size_is_checked_before_runs_are_drawn() -> None:
    """A header that declares very many pixels is rejected, whatever follows."""
    for width, height in ((30_000, 30_000), (-5, 5), (0, 5), (5, -(2**31))):
        data = in_runs(width, height, b"\0\1")
        assert rewrite_bmp(data, MAX_PIXELS) == data
    with pytest.raises(ImageTooLargeError):
        read_picture(in_runs(30_000, 30_000, b"\0\1"), MAX_PIXELS)


@pytest.mark.parametrize(
    "runs", [b"\1\1", b"\xff\1", b"\0\0", b"\1\1\0\0", b"\0\2\0\0", b"\0\3\1\2\3\0"]
)
@pytest.mark.parametrize("bits", [8, 4])
def test_very_many_runs_are_read_at_once(runs: bytes, bits: int) -> None:
    """Millions of short runs take no more time than a large photo."""
    data = in_runs(1000, 1000, runs * (500_000 // len(runs)) + b"\0\1", bits)
    started = time.process_time()
    assert pixels_of(data).shape == (1000, 1000)
    assert time.process_time() - started < 1


def test_number_of_jumps_is_limited() -> None:
    """Jumps that lead nowhere could go on for seconds."""
    with pytest.raises(UnreadableImageError, match="more than 500000 pieces"):
        pixels_of(in_runs(10, 10, b"\0\2\0\0" * (MAX_PIECES + 1)))


@pytest.mark.parametrize(
    "data",
    [
        b"BM" + bytes(8) + b"\xff" * 4 + struct.pack("<I", 16) + bytes(20),
        b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, 3, 3, 1, 24, 0, 0, 0, 0, 2**32 - 1, 0),
    ],
    ids=["place of the pixels", "number of colours"],
)
def test_numbers_of_a_header_may_be_huge(data: bytes) -> None:
    """A header whose numbers do not fit together is a damaged image."""
    with pytest.raises(UnreadableImageError, match="damaged or incomplete"):
        read_picture(data, MAX_PIXELS)
