"""What the directory of a TIFF may say of its strips and tiles."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging import read_image
from service.tiff import MAX_ENTRIES, check_directory
from tests.service.images import encode, noise

SIZE = (28, 28)
MAX_PIXELS = 1_000_000
SHORT, LONG, LONG8, SIGNED_LONG8 = 3, 4, 16, 17
FORMATS = {SHORT: "H", LONG: "I", LONG8: "Q", SIGNED_LONG8: "q"}
Entry = tuple[int, int, list[int]]


def tiff(entries: list[Entry], blob: bytes = b"", is_big: bool = False, order: str = "<") -> bytes:
    """Write a TIFF, or a BigTIFF, of ``entries`` (tag, type, values); a value of -1 is the place of ``blob``."""
    offset, count, entry = (order + part for part in (("Q", "Q", "HHQ") if is_big else ("I", "H", "HHI")))
    start = 16 if is_big else 8
    header = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if is_big else 42)
    header += struct.pack(order + "HHQ", 8, 0, start) if is_big else struct.pack(offset, start)
    inline = struct.calcsize(offset)
    end = start + struct.calcsize(count) + len(entries) * (struct.calcsize(entry) + inline) + inline
    values = [struct.calcsize(f"{len(numbers)}{FORMATS[kind]}") for _, kind, numbers in entries]
    blob_place = end + sum(size for size in values if size > inline)
    directory, rest = struct.pack(count, len(entries)), b""
    for (tag, kind, numbers), size in zip(entries, values, strict=True):
        placed = [blob_place if number == -1 else number for number in numbers]
        packed = struct.pack(f"{order}{len(placed)}{FORMATS[kind]}", *placed)
        directory += struct.pack(entry, tag, kind, len(placed))
        if size <= inline:
            directory += packed.ljust(inline, b"\0")
        else:
            directory += struct.pack(offset, end + len(rest))
            rest += packed
    return header + directory + bytes(inline) + rest + blob


def tiled(
    image: tuple[int, int], tile: tuple[int, int], content: bytes, *more: Entry, blocks: int = 1, **options: object
) -> bytes:
    """Write a grey TIFF of ``image`` (width, height), each of whose ``blocks`` tiles is the same ``content``."""
    blob = zlib.compress(content)
    grey = [(256, image[0]), (257, image[1]), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile[0]), (323, tile[1])]
    entries = [(tag, LONG, [value]) for tag, value in grey]
    tiles = [(324, LONG, [-1] * blocks), (325, LONG, [len(blob)] * blocks)]
    return tiff(sorted([*entries, *tiles, *more]), blob, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("is_big", "order"), [(False, "<"), (False, ">"), (True, "<")])
def test_tiles_are_read(is_big: bool, order: str) -> None:
    """An image in tiles is read as any other, whatever its byte order, also if the tile reaches beyond it."""
    pixels = noise(32, 32)
    data = tiled((28, 28), (32, 32), pixels.tobytes(), is_big=is_big, order=order)
    np.testing.assert_array_equal(read_image(data, SIZE, MAX_PIXELS).image, pixels[:28, :28])


def test_large_tile_of_a_small_image_is_refused() -> None:
    """What a tile has counts, not what of it is seen: for it libtiff makes room."""
    with pytest.raises(ImageTooLargeError, match=r"tiles.* 2097152 pixels"):
        read_image(tiled((28, 28), (2048, 1024), b""), SIZE, MAX_PIXELS)
    with pytest.raises(ImageTooLargeError):
        read_image(tiled((28, 28), (2**31, 2**31), b""), SIZE, MAX_PIXELS)


def test_tiles_that_share_their_bytes_are_refused() -> None:
    """Many tiles with one content cost many times what was sent."""
    content = noise(256, 256).tobytes()
    data = tiled((512, 512), (256, 256), content, blocks=4)
    with pytest.raises(UnreadableImageError, match="strips or tiles"):
        read_image(data, SIZE, MAX_PIXELS)


@pytest.mark.parametrize(
    ("entries", "is_big"),
    [
        ([(322, LONG, [2**15]), (322, LONG, [16])], False),
        ([(277, SHORT, [2**15]), (277, SHORT, [1])], False),
        ([(322, SIGNED_LONG8, [2**15])], True),
        ([(322, LONG, [16, 16])], False),
        ([(322, LONG, [0])], False),
        ([(tag, LONG, [0]) for tag in range(1000, 1001 + MAX_ENTRIES)], False),
    ],
    ids=["tiles told twice", "samples told twice", "type unknown", "two widths", "no width", "too many"],
)
def test_directory_that_readers_differ_on_is_refused(entries: list[Entry], is_big: bool) -> None:
    """What Pillow and libtiff would take for different things, or nobody writes, is damage."""
    with pytest.raises(UnreadableImageError, match="directory"):
        check_directory(tiff(entries, is_big=is_big), (28, 28), MAX_PIXELS)


@given(data=st.binary(max_size=100), position=st.integers(0, 200), cut=st.integers(0, 400))
@settings(deadline=None)
def test_damaged_directory_is_read_or_refused(data: bytes, position: int, cut: int) -> None:
    """A directory with bytes changed and its end cut off is accepted or refused; nothing else happens."""
    good = tiled((28, 28), (32, 32), noise(32, 32).tobytes())
    damaged = (good[:position] + data + good[position + len(data) :])[: max(8, len(good) - cut)]
    try:
        check_directory(damaged, (28, 28), MAX_PIXELS)
    except (UnreadableImageError, ImageTooLargeError):
        return


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
@pytest.mark.parametrize("is_big", [False, True], ids=["TIFF", "BigTIFF"])
def test_what_writers_write_is_read(compression: str, is_big: bool) -> None:
    """TIFFs as Pillow and libtiff write them pass, several pages of them as well."""
    image = Image.fromarray(noise(200, 300))
    image = image.convert("1") if compression == "group4" else image
    data = encode(image, "TIFF", compression=compression, big_tiff=is_big, save_all=True, append_images=[image])
    assert len(list(ImageSequence.Iterator(Image.open(BytesIO(data))))) == 2
    assert read_image(data, SIZE, MAX_PIXELS).image.shape == SIZE
