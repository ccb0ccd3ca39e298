"""Takes from a PNG file the chunks that its pixels need.

Source: the Portable Network Graphics specification, third edition, sections 5 and 11. Knows
nothing about Pillow.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from functools import cache

from service.errors import UnreadableImageError
from service.imaging.stripped import Stripped

START = b"\x89PNG\r\n\x1a\n"
CHECKSUM_BYTES = 4  # at the end of the pixels, as zlib writes it
COLOUR_TYPE_AT, PALETTE = 9, 3  # in the content of IHDR
TRANSPARENCY_BYTES = {0: 2, 2: 6, PALETTE: 1}
"""The least length of tRNS, by colour type."""
HEADER, PALETTE_CHUNK, PIXELS, END = b"IHDR", b"PLTE", b"IDAT", b"IEND"
FIRST_CHUNKS = frozenset({HEADER, PALETTE_CHUNK, b"tRNS", b"eXIf"})
"""What may be needed before the pixels. Of each kind, the first one counts."""
HEAD = struct.Struct(">I4s")  # of a chunk: the length of its content, and its kind
MAX_PIXEL_CHUNKS = 100_000
SHORT_LENGTHS = range(32)  # of chunks that a pattern skips


def strip_png(data: bytes) -> Stripped:
    """Copy the header, the palette, the transparency and the pixels of a PNG, and find its EXIF.

    All other chunks are left out: text, profiles, times, animations. Transparency or EXIF with a
    wrong checksum is left out, too.

    Raises:
        UnreadableImageError: The header or the palette has a wrong checksum, or the pixels are in
            too many chunks.
    """
    chunks: dict[bytes, bytes] = {}
    pixels: list[memoryview] = []
    for kind, content, checksum in _read_chunks(data):
        if kind == PIXELS:
            pixels.append(content)
            if len(pixels) > MAX_PIXEL_CHUNKS:
                raise UnreadableImageError(
                    f"the PNG image has its pixels in more than {MAX_PIXEL_CHUNKS} chunks; a few "
                    "thousand are usual; save it anew"
                )
        elif _is_needed(kind, content, chunks):
            if int.from_bytes(checksum) == zlib.crc32(content, zlib.crc32(kind)):
                chunks[kind] = bytes(content)
            elif kind in (HEADER, PALETTE_CHUNK):
                raise UnreadableImageError(
                    f"the PNG image has a wrong checksum in its chunk {kind.decode()}; "
                    "send it again"
                )
    exif = chunks.pop(b"eXIf", None)
    return Stripped(_write({**chunks, PIXELS: b"".join(pixels)}), exif)


def drop_checksum(stripped: bytes) -> bytes:
    """Return a PNG of ``strip_png`` without the checksum of its pixels, which browsers ignore."""
    chunks = {kind: bytes(content) for kind, content, _ in _read_chunks(stripped)}
    return _write({**chunks, PIXELS: chunks.get(PIXELS, b"")[:-CHECKSUM_BYTES]})


def _read_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Return the kind, the content and the checksum of the chunks that may be needed.

    The last one may be cut off. A file may have millions of other short chunks, so a pattern skips
    these: a loop takes five times as long.
    """
    view, place, kind, wanted = memoryview(data), len(START), b"", FIRST_CHUNKS
    while place + 8 <= len(data) and kind != END:
        length, kind = HEAD.unpack_from(data, place)
        start, end = place + 8, place + 8 + length
        place = end + 4
        if kind == PIXELS and length:
            wanted = frozenset()
            yield kind, view[start:end], view[end:place]
            continue
        if kind in wanted:
            wanted -= {kind}
            yield kind, view[start:end], view[end:place]
        if others := _compile_short(wanted).match(data, place):
            place = others.end()


@cache
def _compile_short(wanted: frozenset[bytes]) -> re.Pattern[bytes]:
    """Return a pattern of short chunks of other kinds than ``wanted``, and of empty pixels."""
    needed = b"|".join(sorted({PIXELS, END, *wanted}))
    contents = [rb"\x%02x(?!%b).{%d}" % (length, needed, length + 8) for length in SHORT_LENGTHS]
    # Not *+: before 3.11.5, Python's possessive loops go wrong after a lookahead in them.
    return re.compile(rb"(?:\0\0\0(?:%b|\0IDAT.{4})){0,1000}" % b"|".join(contents), re.DOTALL)


def _is_needed(kind: bytes, content: memoryview, chunks: dict[bytes, bytes]) -> bool:
    if kind in (HEADER, b"eXIf"):
        return True
    colour_type = chunks.get(HEADER, b"")[COLOUR_TYPE_AT:][:1]
    if kind == PALETTE_CHUNK:
        return colour_type == bytes([PALETTE])
    if kind != b"tRNS" or not colour_type:
        return False
    is_early = colour_type[0] == PALETTE and PALETTE_CHUNK not in chunks
    return len(content) >= TRANSPARENCY_BYTES.get(colour_type[0], len(content) + 1) and not is_early


def _write(chunks: dict[bytes, bytes]) -> bytes:
    """Return the file of these chunks, in their order."""
    return START + b"".join(map(_write_chunk, (*chunks, END), (*chunks.values(), b"")))


def _write_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((HEAD.pack(len(content), kind), content, checksum.to_bytes(4)))
