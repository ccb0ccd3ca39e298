"""Takes from a GIF file what its first frame needs.

Source: Graphics Interchange Format, version 89a, sections 15 to 27. Knows nothing about Pillow.
"""

from __future__ import annotations

import re

from service.imaging.stripped import Stripped

STARTS = (b"GIF87a", b"GIF89a")
HEADER_BYTES, FLAGS_AT = 13, 10
HAS_PALETTE, PALETTE_SIZE = 0x80, 0x07  # bits of the flags
CONTROL_BYTES = 4
BLOCKS = {length: re.escape(bytes([length])) + b".{%d}" % length for length in range(1, 256)}
REST = rb"(?:%b)*+\0" % b"|".join(BLOCKS.values())
"""What follows the kind of an extension: blocks that begin with their length; the last is empty."""
OTHER = rb"!(?:[^\xf9](?:\0|%b)|\xf9(?:\0|(?:%b)%b))" % (
    REST,
    b"|".join(block for length, block in BLOCKS.items() if length != CONTROL_BYTES),
    REST,
)
"""An extension that is not a graphic control extension, the only one about pixels.

There is no lookahead in the possessive loops: before 3.11.5, Python goes wrong after one.
"""
NOTHING = rb"[^!,;]++"
"""Bytes that begin no block. Pillow would skip them one by one."""
CONTROL = rb"!\xf9\x04.{4}"
OTHERS = re.compile(rb"(?:%b|%b)*+" % (OTHER, NOTHING), re.DOTALL)
NEXT_CONTROL = re.compile(
    rb"(?:%b|%b)*+(?:%b\0(?=!\xf9\x04)){0,1000}(%b%b)" % (OTHER, NOTHING, CONTROL, CONTROL, REST),
    re.DOTALL,
)
"""Patterns, because a file may have millions of extensions: a loop takes five times as long."""


def strip_gif(data: bytes) -> Stripped:
    """Copy a GIF without the extensions before its first frame that are not about pixels."""
    place = HEADER_BYTES
    if len(data) > FLAGS_AT and data[FLAGS_AT] & HAS_PALETTE:
        place += 6 << (data[FLAGS_AT] & PALETTE_SIZE)
    header, control = data[:place], b""
    while found := NEXT_CONTROL.match(data, place):
        control, place = found[1], found.end()
    if others := OTHERS.match(data, place):
        place = others.end()
    return Stripped(header + control + data[place:])
