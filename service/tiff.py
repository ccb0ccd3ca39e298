"""Own what the directory of a TIFF says of its strips and tiles: libtiff believes it, however small the image is.

libtiff makes room for a whole tile, and reads as much for each as the directory says: 150 bytes could cost gigabytes.
Pillow reads the directory by itself, of two like entries the last, where libtiff takes the first, and none of a type
that it does not know.
"""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from service.errors import ImageTooLargeError, UnreadableImageError

TILE_WIDTH, TILE_LENGTH, STRIP_BYTES, TILE_BYTES = 322, 323, 279, 325
NUMBERS = {3: "u2", 4: "u4", 16: "u8"}  # SHORT, LONG and LONG8
TYPES = {*range(1, 14), 16}  # that Pillow knows
KINDS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True)}  # of file: byte order, BigTIFF or not
MAX_ENTRIES = 4096


def check_directory(data: bytes, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse a TIFF of ``size`` (width, height) whose first directory would have libtiff do more than its pixels need.

    Raises:
        ImageTooLargeError: Its tiles have more than ``max_pixels``.
        UnreadableImageError: Its strips or tiles have more bytes than the file, or the directory is damaged.
    """
    try:
        found = _read_directory(data)
        tile = [int(found[tag].item()) if tag in found else 1 for tag in (TILE_WIDTH, TILE_LENGTH)]
        pixels = math.prod(-(-side // tile_side) * tile_side for side, tile_side in zip(size, tile, strict=True))
    except (ArithmeticError, LookupError, ValueError, struct.error) as error:
        raise UnreadableImageError("the directory of the TIFF is damaged; save it anew") from error
    if pixels > max_pixels:
        raise ImageTooLargeError(
            f"the tiles of the TIFF image have {pixels} pixels; at most {max_pixels} are allowed; save it without any"
        )
    stored = sum(int(found[tag].sum(dtype=np.float64)) for tag in (STRIP_BYTES, TILE_BYTES) if tag in found)
    if stored > len(data):
        raise UnreadableImageError(
            f"the strips or tiles of the TIFF image have {stored} bytes, but the file has {len(data)}; send it again"
        )


def _read_directory(data: bytes) -> dict[int, NDArray[np.unsignedinteger]]:
    """Read the tags named above (TIFF 6.0, section 2, and BigTIFF)."""
    order, is_big = KINDS[data[:4]]
    layout = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
    offset, count, entry = (struct.Struct(order + part) for part in layout)
    (start,) = offset.unpack_from(data, 8 if is_big else 4)
    (entries,) = count.unpack_from(data, start)
    if entries > MAX_ENTRIES:
        raise ValueError
    seen, found = set(), {}
    for number in range(entries):
        tag, kind, length, value = entry.unpack_from(data, start + count.size + number * entry.size)
        if tag in seen or kind not in TYPES:
            raise ValueError
        seen.add(tag)
        if tag in (TILE_WIDTH, TILE_LENGTH, STRIP_BYTES, TILE_BYTES):
            numbers = np.dtype(order + NUMBERS[kind])
            is_inline = length * numbers.itemsize <= len(value)
            source, place = (value, 0) if is_inline else (data, offset.unpack(value)[0])
            found[tag] = np.frombuffer(source, numbers, length, place)
    return found
