"""Takes from a GIF file what its first frame needs.

Source: Graphics Interchange Format, version 89a, sections 15 to 27. Knows nothing about Pillow.
"""

from __future__ import annotations

from service.imaging.stripped import Stripped

STARTS = (b"GIF87a", b"GIF89a")
HEADER_BYTES, FLAGS_AT = 13, 10
HAS_PALETTE, PALETTE_SIZE = 0x80, 0x07  # bits of the flags
EXTENSION, FRAME = 0x21, 0x2C  # kinds of blocks
CONTROL, CONTROL_BYTES = 0xF9, 4  # a kind of extension, which has transparency


def strip_gif(data: bytes) -> Stripped:
    """Copy a GIF without the extensions before its first frame that are not about pixels."""
    place = HEADER_BYTES
    if len(data) > FLAGS_AT and data[FLAGS_AT] & HAS_PALETTE:
        place += 6 << (data[FLAGS_AT] & PALETTE_SIZE)
    header, control = data[:place], b""
    while data[place : place + 1] == bytes([EXTENSION]):
        start = place
        place = _skip_blocks(data, start + 2)
        if data[start + 1 : start + 3] == bytes([CONTROL, CONTROL_BYTES]):
            control = data[start:place]
    return Stripped(header + control + data[place:])


def _skip_blocks(data: bytes, place: int) -> int:
    """Return where a list of blocks ends; each begins with its length, and the last is empty."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1
