"""Own what is refused by its bytes, before a decoder sees it, for it would cost far more than its pixels.

Pillow, libjpeg and libtiff believe what a file says of itself: a few bytes can have them take gigabytes, or minutes.
See docs/decisions/0014-screen-files-before-they-are-decoded.md. Must know nothing of Pillow's classes.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from service.errors import ImageTooLargeError, UnreadableImageError

JPEG_START, PNG_START, TIFF_STARTS = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", (b"II", b"MM")

MAX_JPEG_SCANS = 100  # ten are usual; each goes over all pixels, and may be of a few bytes
MAX_JPEG_SEGMENTS = 65_536  # of applications, and comments: an object is made of each
MAX_PIECES = 64  # of a colour profile or EXIF: each is unpacked, or appended to all before it
SCAN, APPLICATION_1, COMMENT = 0xDA, 0xE1, 0xFE
# Tables by a byte's value, several times as fast as ``np.isin``.
IS_SCAN_SIZE, IS_FRAME_SIZE, IS_PRECISION, IS_ARITHMETIC_FRAME, IS_SEGMENT = (
    np.isin(np.arange(256), values)
    for values in (
        (8, 10, 12, 14),  # of a head of 1 to 4 components
        (11, 14, 17, 20),
        (8, 12),
        (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF),
        (*range(0xE0, 0xF0), COMMENT),
    )
)

TIFF_KINDS = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
}  # byte order, BigTIFF or not
MAX_TIFF_ENTRIES = 4096
MAX_TIFF_NUMBERS = 4096  # of a tag, each of which Pillow makes an object of; bytes and text are one
MAX_TIFF_BLOCKS = 2**18  # strips or tiles
BYTES_AND_TEXT = (1, 2, 7)  # by type
UNIT_BYTES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), start=1)) | {
    16: 8,
    18: 8,
}  # by type
NUMBERS = {
    3: "u2",
    4: "u4",
    13: "u4",
    16: "u8",
    18: "u8",
}  # of the types SHORT, LONG and LONG8, IFD and IFD8
IMAGE_SIDES, TILE_SIDES, STRIP_BYTES, TILE_BYTES, COMPRESSION = (
    (256, 257),
    (322, 323),
    279,
    325,
    259,
)
STRIP_OFFSETS, TILE_OFFSETS, EXIF_AND_GPS = 273, 324, (34665, 34853)
BLOCK_TAGS = {STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES}
READ_TAGS = {*IMAGE_SIDES, *TILE_SIDES, *BLOCK_TAGS, COMPRESSION, *EXIF_AND_GPS}
UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACK_BITS = 1, 5, 8, 32946, 32773
MAX_TILE_SIDE_PIXELS = 32_768


def screen(data: bytes, max_tile_pixels: int) -> None:
    """Refuse a JPEG, PNG or TIFF that makes its decoder do far more than its pixels need; let all else pass.

    Raises:
        ImageTooLargeError: The tiles of a TIFF, with what of them is not seen, have more than ``max_tile_pixels``.
        UnreadableImageError: Any other reason.
    """
    if data.startswith(JPEG_START):
        _screen_jpeg(data)
    elif data.startswith(PNG_START):
        if (profiles := data.count(b"iCCP")) > MAX_PIECES:
            raise UnreadableImageError(
                f"the PNG image has {profiles} colour profiles; one is usual; save it anew"
            )
    elif data.startswith(TIFF_STARTS):
        _screen_tiff(data, max_tile_pixels)


def _screen_jpeg(data: bytes) -> None:
    # Within a scan the first byte of a marker is escaped, so what is found is markers. A film may follow the image, as
    # phones have it, in whose bytes markers come up, but hardly with the size of a head behind them.
    values = np.frombuffer(data, np.uint8)
    places = np.flatnonzero((values[:-4] == 0xFF) & (values[1:-3] >= 0xC0) & (values[1:-3] != 0xFF))
    kinds, highs, lows, next_values = (values[places + offset] for offset in (1, 2, 3, 4))
    scans = np.count_nonzero((kinds == SCAN) & (highs == 0) & IS_SCAN_SIZE[lows])
    segments = np.count_nonzero(IS_SEGMENT[kinds])
    if scans > MAX_JPEG_SCANS or segments > MAX_JPEG_SEGMENTS:
        raise UnreadableImageError(
            f"the JPEG image has {scans} scans and {segments} segments; at most {MAX_JPEG_SCANS} and "
            f"{MAX_JPEG_SEGMENTS} are read; save it anew"
        )
    pieces = sum(
        data.startswith(b"Exif\0\0", place + 4) for place in places[kinds == APPLICATION_1].tolist()
    )
    if pieces > MAX_PIECES:
        raise UnreadableImageError(
            f"the JPEG image has EXIF in {pieces} segments; one is usual; save it anew"
        )
    if (
        IS_ARITHMETIC_FRAME[kinds] & (highs == 0) & IS_FRAME_SIZE[lows] & IS_PRECISION[next_values]
    ).any():
        raise UnreadableImageError(
            "the JPEG image is in arithmetic coding, which takes long to read; save it anew"
        )


def _screen_tiff(data: bytes, max_tile_pixels: int) -> None:
    # libtiff makes room for a whole tile, and reads as much for each strip or tile as the directory says.
    try:
        tags = _read_directories(data)
        size, tile = (
            [int(tags[tag].item()) for tag in pair if tag in tags]
            for pair in (IMAGE_SIDES, TILE_SIDES)
        )
        pixels = math.prod(
            -(-side // tile_side) * tile_side
            for side, tile_side in zip(size, tile, strict=bool(tile))
        )
        compression = int(tags[COMPRESSION].item()) if COMPRESSION in tags else UNCOMPRESSED
    except (ArithmeticError, LookupError, ValueError, struct.error) as error:
        raise UnreadableImageError(
            "the directory of the TIFF image is damaged; save it anew"
        ) from error
    if compression not in (UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACK_BITS):
        raise UnreadableImageError(
            f"the TIFF image is compressed by method {compression}; save it with LZW, Deflate or PackBits, or none"
        )
    if tile and (max(tile) > MAX_TILE_SIDE_PIXELS or pixels > max_tile_pixels):
        raise ImageTooLargeError(
            f"the tiles of the TIFF image have {pixels} pixels, and {max(tile)} a side; at most {max_tile_pixels}, and "
            f"{MAX_TILE_SIDE_PIXELS} a side, are allowed; save it without tiles"
        )
    stored = sum(
        int(tags[tag].sum(dtype=np.float64)) for tag in (STRIP_BYTES, TILE_BYTES) if tag in tags
    )
    if compression != UNCOMPRESSED and stored > len(
        data
    ):  # else Pillow reads by itself, and takes no notice
        raise UnreadableImageError(
            f"the strips or tiles of the TIFF image have {stored} bytes, but the file has {len(data)}; send it again"
        )


def _read_directories(data: bytes) -> dict[int, NDArray[np.unsignedinteger]]:
    """Read the tags that count from the first directory of a TIFF (TIFF 6.0, section 2, and BigTIFF).

    Pillow and libtiff each read it by themselves, so what they may take for different things is refused: tags that come
    twice, or have a type that one of them does not know, and here one that no writer has for such a tag. Pillow reads
    the directories of EXIF and GPS as well.

    Raises:
        LookupError, ValueError, struct.error: It is damaged, or the tags have more bytes than the file.
    """
    order, is_big = TIFF_KINDS[data[:4]]
    layout = [
        struct.Struct(order + part)
        for part in (("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s"))
    ]
    (start,) = layout[0].unpack_from(data, 8 if is_big else 4)
    tags, room = _read_directory(data, order, layout, start, len(data))
    for tag in EXIF_AND_GPS:
        if tag in tags:
            _, room = _read_directory(data, order, layout, int(tags[tag].item()), room)
    return tags


def _read_directory(
    data: bytes, order: str, layout: list[struct.Struct], start: int, room: int
) -> tuple[dict[int, NDArray[np.unsignedinteger]], int]:
    """Read one directory; return its tags, and what they leave of ``room``, for each is copied, whatever tag it is."""
    offset, count, entry = layout
    (entries,) = count.unpack_from(data, start)
    if entries > MAX_TIFF_ENTRIES:
        raise ValueError
    seen, found = set(), {}
    for number in range(entries):
        tag, kind, length, value = entry.unpack_from(data, start + count.size + number * entry.size)
        room -= length * UNIT_BYTES[kind]
        most = MAX_TIFF_BLOCKS if tag in BLOCK_TAGS else MAX_TIFF_NUMBERS
        if tag in seen or room < 0 or (length > most and kind not in BYTES_AND_TEXT):
            raise ValueError
        seen.add(tag)
        if tag in READ_TAGS:
            numbers = np.dtype(order + NUMBERS[kind])
            is_inline = length * numbers.itemsize <= len(value)
            source, place = (value, 0) if is_inline else (data, offset.unpack(value)[0])
            found[tag] = np.frombuffer(source, numbers, length, place)
    return found, room
