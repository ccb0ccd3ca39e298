"""Screen AVIF and HEIC files: what they hold, and what it costs to decode them.

Both are HEIF files (ISO/IEC 23008-12): boxes within boxes, and tables of items. A picture is one
item, or a grid of items. Decoders trust the tables, so a file of a few kilobytes can make them
decode gigabytes: docs/decisions/0014-screen-files-before-they-are-decoded.md has examples.
Knows nothing about Pillow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging.bitstreams import (
    MAX_UNITS,
    Bits,
    check_hevc_header,
    check_hevc_picture,
    read_av1_pixels,
)

MAX_BOXES = 4096  # beside each other
MAX_TABLE_BYTES = 32_768  # 200 tiles take 6 kB; libavif's time grows with the square of the size
MAX_EXTENTS = 4096  # of all items; an extent may take no bytes in the table
MAX_PROPERTIES = 32  # of an item; libheif applies each rotation that is listed
MAX_GRID_FACTOR = 2  # all tiles together may have this times the pixels of a picture

AVIF_BRANDS = {b"avif", b"avis"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
MAX_BRANDS_BYTES = 256
NEEDED_BOXES = {b"ftyp", b"meta", b"mdat"}
NEEDED_TABLES = {b"hdlr", b"pitm", b"iloc", b"iinf", b"iref", b"iprp", b"idat"}
NEEDED_ITEMS = {b"av01", b"hvc1", b"grid"}

Extents = list[tuple[int, int]]
"""Where the content of an item is: starts and ends in the file."""


@dataclass(frozen=True)
class _Box:
    """A box, whose kind is written at ``kind_at``; ``start`` and ``end`` are its content's."""

    kind: bytes
    kind_at: int
    start: int
    end: int


def name_heif(data: bytes) -> str | None:
    """Tell AVIF from HEIC by the brands of a file: ``AVIF``, ``HEIF``, or None for neither."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4]), MAX_BRANDS_BYTES)
    brands = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
    if brands & AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & HEIF_BRANDS else None


def screen_heif(data: bytes, kind: str, max_pixels: int) -> bytes:
    """Return a copy of an AVIF or HEIC file in which decoders find the still pictures alone.

    EXIF and XMP are hidden: as in browsers, only the file's own properties turn it upright.
    Animations are hidden: their first frame is a still picture, too.

    Raises:
        ImageTooLargeError: A picture has more than ``max_pixels``.
        UnreadableImageError: The file is damaged, or a picture has several frames.
    """
    copy = bytearray(data)
    if kind == "AVIF":
        _hide_animation(copy)
    try:
        largest, tiles = _count_pixels(copy)
    except (ValueError, LookupError) as error:
        raise UnreadableImageError(
            f"the {kind} image of {len(data)} bytes is damaged or incomplete; send it again"
        ) from error
    if largest > max_pixels:
        raise ImageTooLargeError(
            f"the {kind} image has a picture of {largest} pixels; at most {max_pixels} are "
            "allowed; scale it down"
        )
    if tiles > MAX_GRID_FACTOR * max_pixels:
        raise ImageTooLargeError(
            f"the {kind} image has {tiles} pixels in tiles; at most {MAX_GRID_FACTOR * max_pixels} "
            "are allowed; scale it down"
        )
    return bytes(copy)


def _count_pixels(data: bytearray) -> tuple[int, int]:
    """Hide what is not needed; return the pixels of the largest picture, and of all tiles."""
    tables = _find_tables(data)
    kinds = _read_kinds(data, tables[b"iinf"])
    needed = {item for item, kind in kinds.items() if kind in NEEDED_ITEMS}
    extents = _read_extents(data, tables[b"iloc"], tables.get(b"idat"), needed)
    pixels = _read_declared_pixels(data, tables[b"iprp"])
    units_left = iter(range(MAX_UNITS))
    for item, kind in kinds.items():
        content = memoryview(b"".join(data[start:end] for start, end in extents.get(item, ())))
        if kind == b"av01":
            pixels[item] = read_av1_pixels(content, units_left)
        elif kind == b"hvc1":
            check_hevc_picture(content, units_left)
    tiles = _read_tiles(data, tables[b"iref"], kinds) if b"iref" in tables else []
    return max(pixels.values(), default=0), sum(pixels[item] for item in tiles)


def _boxes(data: bytearray, start: int, end: int) -> Iterator[_Box]:
    for _ in range(MAX_BOXES):
        if start == end:
            return
        size, content = int.from_bytes(data[start : start + 4]), start + 8
        if size == 1:
            size, content = int.from_bytes(data[content : content + 8]), content + 8
        stop = start + size if size else end
        if not content <= stop <= end:
            break
        yield _Box(bytes(data[start + 4 : start + 8]), start + 4, content, stop)
        start = stop
    raise ValueError


def _hide(data: bytearray, kind_at: int) -> None:
    """Give a box or an item a kind that every reader passes over."""
    data[kind_at : kind_at + 4] = b"free"


def _hide_animation(data: bytearray) -> None:
    """Keep libavif from decoding the animation: it does if a file has the brand "avis"."""
    end = int.from_bytes(data[:4])
    data[8:end] = b"avif" + data[12:end].replace(b"avis", b"avif")


def _find_tables(data: bytearray) -> dict[bytes, _Box]:
    boxes = _cut_after_damage(data)
    (meta,) = (box for box in boxes if box.kind == b"meta")
    tables = list(_boxes(data, meta.start + 4, meta.end))
    for box in boxes:
        if box.kind not in NEEDED_BOXES:
            _hide(data, box.kind_at)
    for table in tables:
        if table.kind not in NEEDED_TABLES:
            _hide(data, table.kind_at)
        elif table.kind in (b"iinf", b"iloc", b"iref"):
            _check_bytes(table)
    found = {table.kind: table for table in tables}
    if len(found) < len(tables):
        raise ValueError
    return found


def _cut_after_damage(data: bytearray) -> list[_Box]:
    """Return the outer boxes, and cut off what follows them: browsers do not look at it."""
    boxes: list[_Box] = []
    try:
        boxes.extend(_boxes(data, 0, len(data)))
    except ValueError:
        del data[boxes[-1].end :]
    return boxes


def _check_bytes(table: _Box) -> None:
    if table.end - table.start > MAX_TABLE_BYTES:
        raise ValueError


def _read_kinds(data: bytearray, table: _Box) -> dict[int, bytes]:
    """Return the kind of each item; hide those that are not needed for a picture."""
    kinds: dict[int, bytes] = {}
    count_bytes = 4 if data[table.start] else 2
    for entry in _boxes(data, table.start + 4 + count_bytes, table.end):
        version = data[entry.start]
        if entry.kind != b"infe" or version not in (2, 3):
            raise ValueError
        id_bytes = 2 if version == 2 else 4
        item_at = entry.start + 4
        kind_at = item_at + id_bytes + 2
        item = int.from_bytes(data[item_at : item_at + id_bytes])
        if item in kinds or kind_at + 4 > entry.end:
            raise ValueError
        kinds[item] = bytes(data[kind_at : kind_at + 4])
        if kinds[item] not in NEEDED_ITEMS:
            _hide(data, kind_at)
    return kinds


def _read_extents(
    data: bytearray, table: _Box, inline: _Box | None, needed: set[int]
) -> dict[int, Extents]:
    """Return where each needed item is; where others are never matters, because they are hidden."""
    extents: dict[int, Extents] = {}
    extents_left = MAX_EXTENTS
    version, bits = data[table.start], Bits(data[table.start + 4 : table.end])
    offset_bits, length_bits, base_bits, index_bits = (8 * bits.read(4) for _ in range(4))
    id_bits = 32 if version == 2 else 16
    for _ in range(bits.read(id_bits)):
        item = bits.read(id_bits)
        origins = {0: 0, 1: inline.start} if inline else {0: 0}
        method = bits.read(16) if version else 0
        origin = origins[method] if item in needed else 0
        bits.read(16)  # which file; there is one
        base = origin + bits.read(base_bits)
        if item in extents:
            raise ValueError
        extents[item] = []
        count = bits.read(16)
        extents_left -= count
        if extents_left < 0:
            raise ValueError
        for _ in range(count):
            bits.read(index_bits if version else 0)
            start, length = base + bits.read(offset_bits), bits.read(length_bits)
            if item in needed:
                if not length or start + length > len(data):
                    raise ValueError
                extents[item].append((start, start + length))
    if sum(end - start for item in extents.values() for start, end in item) > 2 * len(data):
        raise ValueError
    return extents


def _read_declared_pixels(data: bytearray, table: _Box) -> dict[int, int]:
    """Return how many pixels the properties of each item declare."""
    pixels: dict[int, int] = {}
    boxes = list(_boxes(data, table.start, table.end))
    (properties,) = (box for box in boxes if box.kind == b"ipco")
    sizes = [0, *(_read_size(data, box) for box in _boxes(data, properties.start, properties.end))]
    for box in boxes:
        if box.kind == b"ipma":
            more = _read_associations(data, box, sizes)
            if pixels.keys() & more.keys():
                raise ValueError
            pixels |= more
    return pixels


def _read_size(data: bytearray, box: _Box) -> int:
    """Return the pixels that a property declares, 0 if it has none."""
    if box.kind == b"hvcC":
        _check_bytes(box)
        check_hevc_header(memoryview(data)[box.start : box.end])
    if box.kind != b"ispe":
        return 0
    bits = Bits(data[box.start + 4 : box.end])
    return bits.read(32) * bits.read(32)


def _read_associations(data: bytearray, box: _Box, sizes: list[int]) -> dict[int, int]:
    _check_bytes(box)
    pixels: dict[int, int] = {}
    bits = Bits(data[box.start + 4 : box.end])
    id_bits = 32 if data[box.start] else 16
    number_bits = 15 if data[box.start + 3] & 1 else 7
    for _ in range(bits.read(32)):
        item, count = bits.read(id_bits), bits.read(8)
        if item in pixels or count > MAX_PROPERTIES:
            raise ValueError
        numbers = [bits.read(1 + number_bits) % 2**number_bits for _ in range(count)]
        pixels[item] = max((sizes[number] for number in numbers), default=0)
    return pixels


def _read_tiles(data: bytearray, table: _Box, kinds: dict[int, bytes]) -> list[int]:
    """Return the items that grids show, each as often as it is shown."""
    id_bits = 32 if data[table.start] else 16
    tiles: list[int] = []
    for box in _boxes(data, table.start + 4, table.end):
        bits = Bits(data[box.start : box.end])
        owner, count = bits.read(id_bits), bits.read(16)
        if box.kind == b"dimg" and kinds.get(owner) == b"grid":
            tiles += [bits.read(id_bits) for _ in range(count)]
    if any(kinds[item] == b"grid" for item in tiles):
        raise ValueError
    return tiles
