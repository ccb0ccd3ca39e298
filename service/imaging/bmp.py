"""Rewrites the kinds of BMP files that browsers show and Pillow does not read.

Sources: Microsoft's documentation of BITMAPINFOHEADER and BITMAPV5HEADER; for other headers, what
Chromium does. Knows nothing about Pillow.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace

import numpy as np

from service.errors import UnreadableImageError

START = b"BM"
FILE_HEADER_BYTES, SHORT_HEADER_BYTES, HEADER_BYTES = 14, 16, 40
OS2_HEADER_BYTES = 64  # in which the compressions 3 and 4 have other meanings
ALPHA_HEADER_BYTES = 56  # headers of at least this length have a mask of the opacity
PIXELS_AT, MASKS_AT = 10, FILE_HEADER_BYTES + HEADER_BYTES
PLAIN, RLE_8, RLE_4, MASKS, JPEG, PNG, ALPHA_MASKS = range(7)  # compressions
COMMON_MASKS = {
    16: ((0x7C00, 0x3E0, 0x1F, 0), (0xF800, 0x7E0, 0x1F, 0)),
    32: ((0xFF0000, 0xFF00, 0xFF, 0), (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
}
"""Of red, green, blue and opacity, by bits of a pixel, as Pillow reads them."""
WRITTEN_MASKS = COMMON_MASKS[32][1]
FULL = 255
BAND_PIXELS = 2**18  # converted at a time
RUNS = re.compile(rb"(?:[\1-\xff].)++", re.DOTALL)
FEW_RUNS_BYTES = 400  # up to which a loop takes less time than NumPy
FROM_HEX = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))
MAX_PIECES = 500_000  # of run lengths: ends of rows, jumps, and pixels without a run
END_OF_ROW, END, DELTA = range(3)  # after a zero in run lengths; more is a number of pixels


@dataclass(frozen=True)
class _Header:
    """The header; ``height`` is negative if the first row comes first."""

    bytes_: int
    width: int
    height: int
    bits: int
    compression: int
    colours: int

    @property
    def rows(self) -> int:
        return abs(self.height)

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def has_masks(self) -> bool:
        return self.compression in (MASKS, ALPHA_MASKS) and self.bytes_ != OS2_HEADER_BYTES

    @property
    def palette_at(self) -> int:
        masks = {MASKS: 12, ALPHA_MASKS: 16}.get(self.compression, 0)
        return FILE_HEADER_BYTES + self.bytes_ + masks * (self.bytes_ == HEADER_BYTES)

    @property
    def palette_bytes(self) -> int:
        most = 2**self.bits if self.bits <= 8 else self.colours
        return 4 * min(self.colours or most, most)


def rewrite_bmp(data: bytes, max_pixels: int) -> bytes:
    """Return a BMP that Pillow reads; ``data`` itself if Pillow reads it, or it is damaged.

    Pixels of two bits, with uncommon masks or in run lengths are written anew, except those of a
    picture of more than ``max_pixels``. Pillow's own loop over run lengths takes seconds.

    Raises:
        UnreadableImageError: The pixels are compressed in a way that is not read, or incomplete.
    """
    data = _lengthen_header(data)
    header = _read_header(data)
    if header is None or not 0 < header.width * header.rows <= max_pixels:
        return data
    if what := _name_compression(header):
        raise UnreadableImageError(f"the BMP image {what}, which is not read; save it as PNG")
    start = int.from_bytes(data[PIXELS_AT : PIXELS_AT + 4], "little")
    start = start or header.palette_at + header.palette_bytes
    if header.has_masks:
        return _rewrite_masks(data, header, start)
    if header.bits == 2 or header.compression in (RLE_8, RLE_4):
        is_packed = header.compression == PLAIN
        pixels = (_unpack if is_packed else _decode_runs)(data, header, start)
        return _write(replace(header, bits=8, compression=PLAIN), data, pixels)
    pixels_at, colours = struct.pack("<I", start), struct.pack("<I", header.palette_bytes // 4)
    return data[:PIXELS_AT] + pixels_at + data[PIXELS_AT + 4 : 46] + colours + data[50:]


def _lengthen_header(data: bytes) -> bytes:
    """Give a file of OS/2 with the shortest header the common one, whose other fields are 0."""
    if int.from_bytes(data[14:18], "little") != SHORT_HEADER_BYTES:
        return data
    more = HEADER_BYTES - SHORT_HEADER_BYTES
    start = int.from_bytes(data[PIXELS_AT : PIXELS_AT + 4], "little")
    head = struct.pack("<II", start + more if start else 0, HEADER_BYTES)
    return data[:PIXELS_AT] + head + data[18:30] + bytes(more) + data[30:]


def _read_header(data: bytes) -> _Header | None:
    """Return the header, or None if it is incomplete or one of OS/2 that Pillow reads."""
    length = int.from_bytes(data[14:18], "little")
    if length < HEADER_BYTES or len(data) < FILE_HEADER_BYTES + length:
        return None
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    return _Header(length, width, height, bits, compression, *struct.unpack_from("<I", data, 46))


def _name_compression(header: _Header) -> str | None:
    """Say which compression a file has, if it is not read."""
    if header.bytes_ == OS2_HEADER_BYTES and header.compression in (MASKS, JPEG):
        return "is compressed in a way of OS/2"
    return {JPEG: "holds a JPEG image", PNG: "holds a PNG image"}.get(header.compression)


def _rewrite_masks(data: bytes, header: _Header, start: int) -> bytes:
    """Return the picture with pixels of 32 bits, or ``data`` if Pillow reads its masks."""
    has_alpha = header.bytes_ >= ALPHA_HEADER_BYTES or header.compression == ALPHA_MASKS
    *colours, alpha = struct.unpack_from("<4I", data + bytes(16), MASKS_AT)
    masks = (*colours, alpha * has_alpha)
    is_common = masks in COMMON_MASKS.get(header.bits, ()) and header.compression == MASKS
    is_complete = start + header.row_bytes * header.rows <= len(data)
    if is_common or header.bits not in COMMON_MASKS or not is_complete or not _are_valid(masks):
        return data
    kind = np.dtype("<u2" if header.bits == 16 else "<u4")
    shape = header.rows, header.row_bytes // kind.itemsize
    source = np.frombuffer(data, kind, shape[0] * shape[1], start).reshape(shape)
    pixels = np.zeros((header.rows, header.width, 4), np.uint8)
    band_rows = max(1, BAND_PIXELS // header.width)
    for top in range(0, header.rows, band_rows):
        band = source[top : top + band_rows, : header.width].astype(np.uint32)
        for channel, mask in zip((2, 1, 0, 3), masks, strict=True):
            if mask:
                pixels[top : top + band_rows, :, channel] = _scale(band, mask)
    compression = MASKS if masks[3] else PLAIN
    return _write(replace(header, bits=32, compression=compression), data, pixels.tobytes())


def _are_valid(masks: tuple[int, ...]) -> bool:
    """Tell whether each mask is one row of bits, and no two share one."""
    rows = all(bin(mask).strip("0b").count("0") == 0 for mask in masks)
    shared = sum(masks) != masks[0] | masks[1] | masks[2] | masks[3]
    return rows and not shared and any(masks[:3])


def _scale(pixels: np.ndarray, mask: int) -> np.ndarray:
    """Return one channel of masked ``pixels``, uint32, brought to 8 bits."""
    low = (mask & -mask).bit_length() - 1
    largest = mask >> low
    if largest > FULL:
        return (pixels & mask) >> (mask.bit_length() - 8)
    return ((pixels & mask) >> low) * FULL // largest


def _unpack(data: bytes, header: _Header, start: int) -> bytes:
    """Return pixels of two bits as bytes."""
    packed = np.frombuffer(data[start : start + header.row_bytes * header.rows], np.uint8)
    if packed.size < header.row_bytes * header.rows:
        raise _incomplete()
    pixels = (packed[:, None] >> np.array([6, 4, 2, 0], np.uint8) & 3).reshape(header.rows, -1)
    width = replace(header, bits=8).row_bytes
    return np.pad(pixels, ((0, 0), (0, 3)))[:, :width].tobytes()


def _decode_runs(data: bytes, header: _Header, start: int) -> bytes:
    """Return pixels in run lengths as bytes; pixels that no run sets are 0."""
    width, half = replace(header, bits=8).row_bytes, header.compression == RLE_4
    pixels, x, y, place = bytearray(width * header.rows), 0, 0, start
    for _ in range(MAX_PIECES):
        if y >= header.rows:
            break
        if runs := RUNS.match(data, place):
            place = runs.end()
            drawn = _draw(runs[0], header.width - x, half)
        elif place + 2 > len(data):
            if y < header.rows - 1 or x < header.width:
                raise _incomplete()
            break
        else:
            code, place = data[place + 1], place + 2
            if code == END:
                break
            if code == END_OF_ROW:
                x, y = 0, y + 1
                continue
            if code == DELTA:
                right, up = (*data[place : place + 2], 0, 0)[:2]
                x, y, place = x + right, y + up, place + 2
                continue
            count = (code + 1) // 2 if half else code
            drawn = data[place : place + count]
            drawn = drawn.hex().encode().translate(FROM_HEX)[:code] if half else drawn
            place += count + count % 2
        drawn = drawn[: max(0, header.width - x)]  # a run never goes on in the next row
        at = y * width + x
        pixels[at : at + len(drawn)] = drawn
        x += len(drawn)
    else:
        raise UnreadableImageError(
            f"the BMP image has more than {MAX_PIECES} pieces of run lengths; save it as PNG"
        )
    return bytes(pixels)


def _draw(runs: bytes, room: int, half: bool) -> bytes:
    """Return the pixels of pairs of a count and a byte, which holds two pixels if ``half``.

    Runs that begin after ``room`` pixels are left out.
    """
    if len(runs) <= FEW_RUNS_BYTES:
        drawn = bytearray()
        for count, value in zip(runs[::2], runs[1::2], strict=True):
            if len(drawn) >= room:
                break
            pair = (value >> 4, value & 15) if half else (value, value)
            drawn += (bytes(pair) * ((count + 1) // 2))[:count]
        return bytes(drawn)
    counts, values = np.frombuffer(runs[: 2 * max(0, room)], np.uint8).reshape(-1, 2).T
    ends = np.cumsum(counts, dtype=np.int64)
    needed = np.searchsorted(ends, room) + 1
    counts, values, ends = (
        counts[:needed],
        np.repeat(values[:needed], counts[:needed]),
        ends[:needed],
    )
    if not half:
        return values.tobytes()
    number = np.arange(len(values)) - np.repeat(ends - counts, counts)
    return np.where(number % 2, values & 15, values >> 4).astype(np.uint8).tobytes()


def _incomplete() -> UnreadableImageError:
    return UnreadableImageError(
        "the BMP image is incomplete: the file ends before its last pixels; send it again"
    )


def _write(header: _Header, data: bytes, pixels: bytes) -> bytes:
    """Write a BMP of ``pixels``; its palette is taken from ``data``."""
    palette = data[header.palette_at :][: header.palette_bytes] if header.bits == 8 else b""
    masks = struct.pack("<4I", *WRITTEN_MASKS) if header.compression == MASKS else b""
    start = MASKS_AT + len(masks) + len(palette)
    head = struct.pack(
        "<2sIIIIiiHHIIiiII",
        *(START, start + len(pixels), 0, start),
        *(HEADER_BYTES + len(masks), header.width, header.height, 1, header.bits),
        *(header.compression, len(pixels), 0, 0, len(palette) // 4, 0),
    )
    return b"".join((head, masks, palette, pixels))
