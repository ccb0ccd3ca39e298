"""Reads from EXIF how an image is turned, and nothing else. Knows nothing about Pillow."""

from __future__ import annotations

BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
ENTRY_BYTES = 12
ORIENTATION, SHORT = 0x0112, 3
"""A tag of EXIF, and the type of its value: one number of two bytes."""


def read_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF: 1 to 8, and 1 if the EXIF is damaged or has none.

    Like Chromium, this reads only the first directory, and accepts only one ``SHORT``.
    """
    order = BYTE_ORDERS.get(exif[:4])
    if order is None:
        return 1

    def number(place: int, size: int) -> int:
        return int.from_bytes(exif[place : place + size], "little" if order == "<" else "big")

    start = number(4, 4)
    first, count = start + 2, number(start, 2)
    for place in range(first, min(first + ENTRY_BYTES * count, len(exif)), ENTRY_BYTES):
        if number(place, 2) == ORIENTATION:
            is_plain = number(place + 2, 2) == SHORT and number(place + 4, 4) == 1
            orientation = number(place + 8, 2)
            return orientation if is_plain and 1 <= orientation <= 8 else 1
    return 1
