"""Takes from a PNG file the chunks that its pixels need.

Source: the Portable Network Graphics specification, third edition, sections 5 and 11. Knows
nothing about Pillow.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from service.errors import UnreadableImageError
from service.imaging.stripped import Stripped

START = b"\x89PNG\r\n\x1a\n"
CHUNK_BYTES = 12  # besides its content
CHECKSUM_BYTES = 4  # at the end of the pixels, as zlib writes it
COLOUR_TYPE_AT, PALETTE = 9, 3  # in the content of IHDR
TRANSPARENCY_BYTES = {0: 2, 2: 6, PALETTE: 1}
"""The least length of tRNS, by colour type."""


def strip_png(data: bytes) -> Stripped:
    """Copy the header, the palette, the transparency and the pixels of a PNG, and find its EXIF.

    All other chunks are left out: text, profiles, times, animations. Transparency or EXIF with a
    wrong checksum is left out, too.

    Raises:
        UnreadableImageError: The header or the palette has a wrong checksum.
    """
    chunks: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    for kind, content, checksum in _read_chunks(memoryview(data)):
        if kind == b"IDAT":
            pixels.append(content)
        elif not pixels and kind not in chunks and _is_needed(kind, content, chunks):
            if checksum == zlib.crc32(content, zlib.crc32(kind)):
                chunks[kind] = bytes(content)
            elif kind in (b"IHDR", b"PLTE"):
                raise UnreadableImageError(
                    f"the PNG image has a wrong checksum in its chunk {kind.decode()}; "
                    "send it again"
                )
    exif = chunks.pop(b"eXIf", None)
    joined = b"".join(pixels)
    written = [
        *map(_write_chunk, chunks.keys(), chunks.values()),
        _write_chunk(b"IDAT", joined[:-CHECKSUM_BYTES]),
        _write_chunk(b"IDAT", joined[-CHECKSUM_BYTES:]),
        _write_chunk(b"IEND", b""),
    ]
    return Stripped(START + b"".join(written), exif)


def drop_checksum(stripped: bytes) -> bytes:
    """Return a PNG of ``strip_png`` without the checksum of its pixels, which browsers ignore."""
    return stripped[: -2 * CHUNK_BYTES - CHECKSUM_BYTES] + stripped[-CHUNK_BYTES:]


def _read_chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview, int]]:
    """Return the kind, the content and the checksum of each chunk; the last may be cut off."""
    place, kind = len(START), b""
    while place + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        start, place = place + 8, place + 8 + length
        yield kind, data[start:place], int.from_bytes(data[place : place + 4])
        place += 4


def _is_needed(kind: bytes, content: memoryview, chunks: dict[bytes, bytes]) -> bool:
    if kind in (b"IHDR", b"eXIf"):
        return True
    colour_type = chunks.get(b"IHDR", b"")[COLOUR_TYPE_AT:][:1]
    if kind == b"PLTE":
        return colour_type == bytes([PALETTE])
    if kind != b"tRNS" or not colour_type:
        return False
    is_early = colour_type[0] == PALETTE and b"PLTE" not in chunks
    return len(content) >= TRANSPARENCY_BYTES.get(colour_type[0], len(content) + 1) and not is_early


def _write_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I4s", len(content), kind), content, struct.pack(">I", checksum)))
