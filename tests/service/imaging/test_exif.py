"""EXIF: how an image is turned."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.imaging.exif import read_orientation

ORIENTATION = 0x0112


def directory(order: str, *entries: tuple[int, int, int, int]) -> bytes:
    """Write EXIF with one directory of entries: tag, type, count and value."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    written = b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)
    return start + struct.pack(f"{order}IH", 8, len(entries)) + written


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_in_both_byte_orders(order: str, orientation: int) -> None:
    """The orientation is found among other entries."""
    exif = directory(order, (0x0100, 3, 1, 5), (ORIENTATION, 3, 1, orientation), (0x0131, 2, 1, 0))
    assert read_orientation(exif) == orientation
    assert read_orientation(exif + bytes(1_000_000)) == orientation


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"MM",
        b"II*\0",
        b"XX*\0" + directory("<", (ORIENTATION, 3, 1, 6))[4:],
        directory("<"),
        directory("<", (ORIENTATION, 3, 1, 0)),
        directory("<", (ORIENTATION, 3, 1, 9)),
        directory("<", (ORIENTATION, 4, 1, 6)),
        directory("<", (ORIENTATION, 1, 1, 6)),
        directory("<", (ORIENTATION, 3, 2, 6)),
        directory("<", (0x0100, 3, 1, 6)),
        b"II*\0" + struct.pack("<IH", 0xFFFFFFFF, 9),
    ],
    ids=lambda exif: exif.hex(),
)
def test_odd_exif_turns_nothing(exif: bytes) -> None:
    """As in Chromium, an orientation of another type, number or value is ignored."""
    assert read_orientation(exif) == 1


@pytest.mark.parametrize(("first", "expected"), [([], 1), ([(ORIENTATION, 3, 1, 3)], 3)])
def test_only_the_first_directory_counts(
    first: list[tuple[int, int, int, int]], expected: int
) -> None:
    """An orientation in a later directory, of GPS or of a thumbnail, turns nothing."""
    gps = (0x8825, 4, 1, 0)  # refers to the directory of GPS
    exif = directory("<", *first, gps)
    turned = directory("<", (ORIENTATION, 3, 1, 6))[10:]  # the entry alone
    for later in (turned, bytes(4) + turned, struct.pack("<IH", 0, 1) + turned):
        assert read_orientation(exif + later) == expected
        assert read_orientation(exif + later * 9) == expected


@given(exif=st.binary(max_size=60))
def test_any_exif_has_an_orientation(exif: bytes) -> None:
    """Arbitrary bytes have an orientation."""
    for start in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert read_orientation(start + exif) in range(1, 9)
