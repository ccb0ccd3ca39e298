"""What is refused by its bytes, before a decoder sees it."""

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
from service.imaging.model_input import read_image
from service.imaging.screening import MAX_PIECES, MAX_TIFF_ENTRIES, screen
from tests.service.images import encode, noise

SIZE = (28, 28)
MAX_PIXELS = 1_000_000
SHORT, LONG, SIGNED_LONG, LONG8, SIGNED_LONG8 = 3, 4, 9, 16, 17
FORMATS = {SHORT: "H", LONG: "I", SIGNED_LONG: "i", LONG8: "Q", SIGNED_LONG8: "q"}
Entry = tuple[int, int, list[int]]


def tiff(entries: list[Entry], blob: bytes = b"", is_big: bool = False, order: str = "<") -> bytes:
    """Write a TIFF, or a BigTIFF, of ``entries`` (tag, type, values); a value of -1 is the place of ``blob``."""
    offset, count, entry = (
        order + part for part in (("Q", "Q", "HHQ") if is_big else ("I", "H", "HHI"))
    )
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
    image: tuple[int, int],
    tile: tuple[int, int],
    content: bytes,
    *more: Entry,
    blocks: int = 1,
    **options: object,
) -> bytes:
    """Write a grey TIFF of ``image`` (width, height), each of whose ``blocks`` tiles is the same ``content``."""
    blob = zlib.compress(content)
    grey = [
        (256, image[0]),
        (257, image[1]),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, tile[0]),
        (323, tile[1]),
    ]
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


def test_turned_image_has_its_tiles_as_they_are_stored() -> None:
    """What turns an image upright does not turn its tiles."""
    orientation = (274, SHORT, [6])
    with pytest.raises(ImageTooLargeError, match=r"3276800 pixels"):
        read_image(
            tiled((1, 100), (2**15, 1), bytes(2**15), orientation, blocks=100), SIZE, MAX_PIXELS
        )


def test_tiles_that_share_their_bytes_are_refused() -> None:
    """Many tiles with one content cost many times what was sent."""
    content = noise(256, 256).tobytes()
    data = tiled((512, 512), (256, 256), content, blocks=4)
    with pytest.raises(UnreadableImageError, match="strips or tiles"):
        read_image(data, SIZE, MAX_PIXELS)


GOOD: list[Entry] = [
    (tag, LONG, [value])
    for tag, value in ((256, 28), (257, 28), (259, 8), (277, 1), (322, 32), (323, 32))
]


@pytest.mark.parametrize(
    ("kept", "more"),
    [
        (6, [(322, LONG, [16])]),
        (6, [(277, SHORT, [1])]),
        (4, [(322, SIGNED_LONG, [32]), (323, SIGNED_LONG, [32])]),
        (4, [(322, SIGNED_LONG8, [32]), (323, LONG, [32])]),
        (4, [(322, LONG, [32, 32]), (323, LONG, [32])]),
        (4, [(322, LONG, [0]), (323, LONG, [32])]),
        (4, [(322, LONG, [32])]),
        (6, [(274, SHORT, [1] * 5000)]),
        (6, [(tag, LONG, [0]) for tag in range(1000, 1001 + MAX_TIFF_ENTRIES)]),
    ],
    ids=[
        "twice",
        "any twice",
        "signed",
        "unknown type",
        "two widths",
        "no width",
        "no length",
        "many numbers",
        "too many",
    ],
)
def test_directory_that_readers_differ_on_is_refused(kept: int, more: list[Entry]) -> None:
    """What Pillow and libtiff would take for different things, or nobody writes, is damage."""
    screen(tiff(GOOD, is_big=True), MAX_PIXELS)
    with pytest.raises(UnreadableImageError, match="directory"):
        screen(tiff(GOOD[:kept] + more, is_big=True), MAX_PIXELS)


@given(data=st.binary(max_size=100), position=st.integers(0, 200), cut=st.integers(0, 400))
@settings(deadline=None)
def test_damaged_directory_is_read_or_refused(data: bytes, position: int, cut: int) -> None:
    """A directory with bytes changed and its end cut off is accepted or refused; nothing else happens."""
    good = tiled((28, 28), (32, 32), noise(32, 32).tobytes())
    damaged = (good[:position] + data + good[position + len(data) :])[: max(8, len(good) - cut)]
    try:
        screen(damaged, MAX_PIXELS)
    except (UnreadableImageError, ImageTooLargeError):
        return


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("is_big", [False, True], ids=["TIFF", "BigTIFF"])
def test_what_writers_write_is_read(compression: str, is_big: bool) -> None:
    """TIFFs as Pillow and libtiff write them pass, several pages of them as well."""
    image = Image.fromarray(noise(200, 300))
    data = encode(
        image,
        "TIFF",
        compression=compression,
        big_tiff=is_big,
        save_all=True,
        append_images=[image],
    )
    assert len(list(ImageSequence.Iterator(Image.open(BytesIO(data))))) == 2
    assert read_image(data, SIZE, MAX_PIXELS).image.shape == SIZE


@pytest.mark.parametrize("compression", ["jpeg", "group4", "lzma", "zstd"])
def test_compression_that_is_a_format_of_its_own_is_refused(compression: str) -> None:
    """A TIFF holds no JPEG, fax or archive: what those may cost would have to be bounded by themselves."""
    image = Image.fromarray(noise(200, 300)).convert("1" if compression == "group4" else "RGB")
    with pytest.raises(UnreadableImageError, match="compressed by method"):
        read_image(encode(image, "TIFF", compression=compression), SIZE, MAX_PIXELS)


def test_exif_of_a_tiff_has_its_limits_as_well() -> None:
    """Pillow makes an object of each number in the directory of EXIF, too."""
    for count in (4, 5000):
        directory = struct.pack("<HHHII", 1, 37396, SHORT, count, 8) + bytes(10_000)
        data = tiff([*GOOD, (34665, LONG, [-1])], directory)
        if count == 4:
            screen(data, MAX_PIXELS)
        else:
            with pytest.raises(UnreadableImageError, match="directory"):
                screen(data, MAX_PIXELS)


def test_tags_that_share_their_bytes_are_refused() -> None:
    """Tags that nobody knows are copied as well, each by itself, so all of them together have no more than the file."""
    shared = b"".join(struct.pack("<HHII", tag, 7, 1000, 8) for tag in range(60_000, 60_010))
    assert len(shared) < 1000
    data = b"II*\0" + struct.pack("<IH", 8, 10) + shared + bytes(4 + 1000)
    with pytest.raises(UnreadableImageError, match="directory"):
        screen(data, MAX_PIXELS)


def test_jpeg_of_too_many_pieces_is_refused() -> None:
    """What Pillow keeps or appends to for each segment of a JPEG, or unpacks for each of a PNG, may come sometimes."""
    photo = encode(noise(64, 64), "JPEG")
    empty, exif = b"\xff\xe0\0\2", b"\xff\xe1\0\x09Exif\0\0x"
    for segments in (empty * 1000, exif * 10):
        assert read_image(photo[:2] + segments + photo[2:], SIZE, MAX_PIXELS).image.shape == SIZE
    for segments in (empty * 100_000, exif * 100):
        with pytest.raises(UnreadableImageError, match="segments"):
            read_image(photo[:2] + segments + photo[2:], SIZE, MAX_PIXELS)
    profile = zlib.compress(bytes(100_000))
    content = b"iCCPx\0\0" + profile
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    image = encode(noise(28, 28))
    assert read_image(image[:33] + chunk + image[33:], SIZE, MAX_PIXELS).image.shape == SIZE
    with pytest.raises(UnreadableImageError, match="colour profiles"):
        read_image(image[:33] + chunk * (MAX_PIECES + 1) + image[33:], SIZE, MAX_PIXELS)


def test_arithmetic_coding_is_refused() -> None:
    """A JPEG coded as hardly any is, at a hundredth of the usual speed, is told so."""
    photo = encode(noise(64, 64), "JPEG")
    assert photo.count(b"\xff\xc0\0\x0b\x08") == 1
    with pytest.raises(UnreadableImageError, match="arithmetic"):
        read_image(photo.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc9\0\x0b\x08"), SIZE, MAX_PIXELS)
