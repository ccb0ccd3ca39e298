"""AVIF and HEIC files that are screened before a decoder sees them."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import ImageError, ImageTooLargeError, UnreadableImageError
from service.imaging import InputSpec, read_image, read_picture
from service.imaging.bitstreams import MAX_UNITS, check_hevc_header, read_av1_pixels
from service.imaging.heif import name_heif, screen_heif
from tests.service.images import encode, fault, noise

SIZE = (28, 28)
GREY = InputSpec("item-on-black", SIZE)
MAX_PIXELS = 1_000_000
CODECS = {"AVIF": (b"avif", b"av01", b"av1C"), "HEIF": (b"heic", b"hvc1", b"hvcC")}


def box(kind: bytes, *content: bytes) -> bytes:
    """Write a box."""
    joined = b"".join(content)
    return struct.pack(">I4s", 8 + len(joined), kind) + joined


def full_box(kind: bytes, *content: bytes, version: int = 0) -> bytes:
    """Write a box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24), *content)


def coded(file_format: str, side: int) -> tuple[bytes, bytes]:
    """Encode one red square; return the decoder's configuration and the coded picture."""
    file = encode(Image.new("RGB", (side, side), "red"), file_format)
    start = file.index(CODECS[file_format][2]) - 4
    configuration = file[start : start + int.from_bytes(file[start : start + 4])]
    return configuration, file[file.index(b"mdat") + 4 :]


def grid(
    file_format: str,
    picture: tuple[bytes, bytes],
    tile: int,
    rows: int,
    canvas: int,
    number: str = "H",
    **more: bytes,
) -> bytes:
    """Write a square image made of ``rows * rows`` times the same coded picture.

    ``tile`` and ``canvas`` are the declared sides in pixels; ``more`` replaces tables by name. The
    table of properties numbers its pictures with 16 bits (``H``) or 32 bits (``I``).
    """
    brand, codec, _ = CODECS[file_format]
    configuration, content = picture
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, rows - 1, canvas, canvas)
    header = box(b"ftyp", brand, bytes(4), brand, b"mif1miaf")

    def sides(pixels: int) -> bytes:
        return full_box(b"ispe", struct.pack(">II", pixels, pixels))

    def tables(place: int) -> bytes:
        made = {
            "hdlr": full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
            "pitm": full_box(b"pitm", struct.pack(">H", 1)),
            "iloc": full_box(
                b"iloc",
                struct.pack(">BBH", 0x44, 0, 2),
                struct.pack(">HHHII", 1, 0, 1, place, len(layout)),
                struct.pack(">HHHII", 2, 0, 1, place + len(layout), len(content)),
            ),
            "iinf": full_box(
                b"iinf",
                struct.pack(">H", 2),
                full_box(b"infe", struct.pack(">HH4sB", 1, 0, b"grid", 0), version=2),
                full_box(b"infe", struct.pack(">HH4sB", 2, 0, codec, 0), version=2),
            ),
            "iref": full_box(
                b"iref",
                box(b"dimg", struct.pack(">HH", 1, rows**2), struct.pack(">H", 2) * rows**2),
            ),
            "iprp": box(
                b"iprp",
                box(
                    b"ipco",
                    sides(canvas),
                    sides(tile),
                    configuration,
                    full_box(b"pixi", b"\3\x08\x08\x08"),
                ),
                full_box(
                    b"ipma",
                    struct.pack(">I", 2),
                    struct.pack(f">{number}BBB", 1, 2, 1, 4),
                    struct.pack(f">{number}BBBB", 2, 3, 2, 0x83, 4),
                    version="HI".index(number),
                ),
            ),
        } | more
        return full_box(b"meta", *made.values())

    place = len(header) + len(tables(0)) + 8
    return header + tables(place) + box(b"mdat", layout, content)


@pytest.mark.parametrize("number", ["H", "I"])
@pytest.mark.parametrize("file_format", CODECS)
def test_grid_is_read(file_format: str, number: str) -> None:
    """A picture of one tile is read: what the other tests change is otherwise sound."""
    data = grid(file_format, coded(file_format, 128), tile=128, rows=1, canvas=128, number=number)
    assert read_picture(data, MAX_PIXELS).image.size == (128, 128)


def test_size_is_read_from_the_coded_picture() -> None:
    """A kilobyte that declares 28 x 28 pixels, and decodes to 64 million, is rejected at once."""
    data = fault("bomb-8000x8000.avif")
    assert len(data) < 2000
    started = time.perf_counter()
    with pytest.raises(ImageTooLargeError, match="64000000 pixels; at most 12500000"):
        read_image(data, GREY, 50_000_000)
    assert time.perf_counter() - started < 0.1


def test_size_of_a_heic_is_what_it_declares() -> None:
    """Libheif decodes no more pixels than a HEIC declares."""
    data = encode(Image.new("RGB", (2000, 2000)), "HEIF")
    declared, small = (b"ispe" + bytes(4) + struct.pack(">II", side, side) for side in (2000, 28))
    with pytest.raises(UnreadableImageError):
        read_image(data.replace(declared, small), GREY, 50_000_000)


@pytest.mark.parametrize(
    ("file_format", "rows", "error"),
    [("HEIF", 16, ImageTooLargeError), ("AVIF", 16, ImageError)],
)
def test_tiles_are_counted_as_often_as_they_are_shown(
    file_format: str, rows: int, error: type[ImageError]
) -> None:
    """A small canvas of many large tiles, which are all the same bytes, is rejected."""
    data = grid(file_format, coded(file_format, 512), tile=512, rows=rows, canvas=64)
    with pytest.raises(error):
        read_image(data, GREY, MAX_PIXELS)


@pytest.mark.parametrize("file_format", CODECS)
def test_picture_of_several_frames_is_rejected(file_format: str) -> None:
    """Each frame is decoded, and only one is seen: an animation of 50 frames in one picture."""
    configuration, content = coded(file_format, 128)
    if file_format == "AVIF":
        frame = content[content.index(b"\x32") :]  # the unit that holds the frame
        content += frame * 49
    else:
        content *= 50
    data = grid(file_format, (configuration, content), tile=128, rows=1, canvas=128)
    with pytest.raises(UnreadableImageError, match="50 frames"):
        read_image(data, GREY, MAX_PIXELS)


def test_frames_in_the_configuration_are_rejected() -> None:
    """A frame may also hide in the configuration of HEVC, which libheif decodes first."""
    configuration, content = coded("HEIF", 128)
    content_of = memoryview(configuration)[8:]
    check_hevc_header(content_of)
    arrays = 8 + 22
    hidden = struct.pack(">BHH", 1, 1, len(content) - 4) + content[4:]
    count = bytes([configuration[arrays] + 1])
    changed = configuration[8:arrays] + count + configuration[arrays + 1 :] + hidden
    data = grid("HEIF", (box(b"hvcC", changed), content), tile=128, rows=1, canvas=128)
    with pytest.raises(UnreadableImageError):
        read_image(data, GREY, MAX_PIXELS)


def test_picture_of_other_pictures_is_not_read() -> None:
    """A grid of grids, and an overlay, would each decode a picture many times."""
    picture = coded("HEIF", 128)
    overlay = full_box(
        b"iinf",
        struct.pack(">H", 2),
        full_box(b"infe", struct.pack(">HH4sB", 1, 0, b"iovl", 0), version=2),
        full_box(b"infe", struct.pack(">HH4sB", 2, 0, b"hvc1", 0), version=2),
    )
    nested = full_box(b"iref", box(b"dimg", struct.pack(">HHH", 1, 1, 1)))
    for more in ({"iinf": overlay}, {"iref": nested}):
        with pytest.raises(UnreadableImageError):
            read_image(grid("HEIF", picture, 128, 1, 128, "H", **more), GREY, MAX_PIXELS)


@pytest.mark.parametrize("file_format", CODECS)
def test_long_tables_are_rejected(file_format: str) -> None:
    """A table of 100 kB takes libavif a second, one of 400 kB six; no writer needs as much."""
    picture = coded(file_format, 128)
    references = full_box(
        b"iref", *(box(b"dimg", struct.pack(">HHH", 3, 1, 2)) for _ in range(4000))
    )
    locations = full_box(
        b"iloc", struct.pack(">BBHHHH", 0x44, 0, 1, 1, 0, 12_000), struct.pack(">II", 0, 9) * 12_000
    )
    for more in ({"iref": references}, {"iloc": locations}):
        with pytest.raises(UnreadableImageError):
            read_image(grid(file_format, picture, 128, 1, 128, "H", **more), GREY, MAX_PIXELS)


@pytest.mark.timeout(10)  # it took minutes
@pytest.mark.parametrize("file_format", CODECS)
def test_very_many_extents_are_rejected(file_format: str) -> None:
    """The table of places can claim millions of extents of no bytes in four kilobytes."""
    items = [struct.pack(">HHH", 100 + number, 0, 0xFFFF) for number in range(600)]
    table = full_box(b"iloc", struct.pack(">BBH", 0, 0, len(items)), *items)
    data = grid(file_format, coded(file_format, 128), 128, 1, 128, "H", iloc=table)
    with pytest.raises(UnreadableImageError):
        read_image(data, GREY, MAX_PIXELS)


@pytest.mark.timeout(10)  # it took half a minute
def test_endless_number_in_a_header_is_rejected() -> None:
    """A number of AV1 begins with as many zeros as it has bits, but with 32 at most."""
    start = bits((0, 3), (0, 2), (1, 1), (0, 64), (1, 1))
    content = start + bytes(30_000_000)
    size = bytes(len(content) >> shift & 127 | 128 for shift in (0, 7, 14, 21)) + b"\0"
    with pytest.raises(ValueError):  # noqa: PT011  it has no message
        read_av1_pixels(memoryview(b"\x0a" + size + content + unit(6, b"frame")), units_left())


def test_very_many_boxes_are_skipped() -> None:
    """Empty boxes side by side, or within each other, are skipped in no time."""
    data = fault("photo.avif")
    nested = b""
    for _ in range(10_000):
        nested = box(b"free", nested)
    started = time.perf_counter()
    assert read_image(data + box(b"free") * 100_000, GREY, MAX_PIXELS).image.shape == SIZE
    assert read_image(data + nested, GREY, MAX_PIXELS).image.shape == SIZE
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("tail", [b"text", bytes(5), bytes(100), b"\0\0\xff\xffmdat", b"\xff" * 9])
def test_bytes_after_the_boxes_never_matter(tail: bytes) -> None:
    """What follows the boxes of an AVIF is left out."""
    data = fault("photo.avif")
    np.testing.assert_array_equal(
        np.asarray(read_picture(data + tail, MAX_PIXELS).image),
        np.asarray(read_picture(data, MAX_PIXELS).image),
    )


def test_place_of_exif_never_matters() -> None:
    """An AVIF whose table says that the EXIF is outside of the file is read."""
    data = encode(noise(40, 60), "AVIF", xmp=b"<x/>" * 9)
    plain = read_picture(data, MAX_PIXELS).image
    start = data.index(b"iloc")
    place = struct.pack(">I", data.index(b"<x/>"))
    assert data.count(place, start) == 1
    odd = data.replace(place, b"\xff\xff\xff\0")
    np.testing.assert_array_equal(
        np.asarray(read_picture(odd, MAX_PIXELS).image), np.asarray(plain)
    )


@pytest.mark.parametrize("name", ["photo.avif", "photo.heic"])
def test_cut_off_file_is_rejected(name: str) -> None:
    """Whatever of its end is missing, a file is rejected and named."""
    data = fault(name)
    kind = "AVIF" if name.endswith("avif") else "HEIF"
    for length in range(32, len(data), 97):
        with pytest.raises(UnreadableImageError, match=f"the {kind} image of {length} bytes"):
            read_image(data[:length], GREY, MAX_PIXELS)


# ---- what is hidden from the decoders ------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", CODECS)
def test_picture_is_turned_upright_once(file_format: str, orientation: int) -> None:
    """The property of the file turns it, and the EXIF that cameras write as well does not."""
    upright = np.zeros((120, 80), np.uint8)
    upright[:60, :40], upright[60:, :40] = 255, 128
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    stored = turn(Image.fromarray(upright), back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored.convert("RGB"), file_format, exif=exif.tobytes(), quality=100)
    seen = np.asarray(read_picture(data, MAX_PIXELS).image.convert("L")).astype(int)
    np.testing.assert_allclose(seen, upright, atol=8)


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as EXIF's ``orientation`` asks."""
    how = Image.Transpose
    ways = {
        2: how.FLIP_LEFT_RIGHT,
        3: how.ROTATE_180,
        4: how.FLIP_TOP_BOTTOM,
        5: how.TRANSPOSE,
        6: how.ROTATE_270,
        7: how.TRANSVERSE,
        8: how.ROTATE_90,
    }
    return image.transpose(ways[orientation]) if orientation in ways else image


def with_exif_only(data: bytes, orientation: int) -> bytes:
    """Change the orientation in the EXIF of a file, which has one as a big-endian number."""
    entry = struct.pack(">HHI", 0x0112, 3, 1)
    at = data.index(entry) + len(entry)
    return data[:at] + struct.pack(">H", orientation) + data[at + 2 :]


@pytest.mark.parametrize("key", ["exif", "xmp"])
def test_exif_and_xmp_do_not_turn_a_picture(key: str) -> None:
    """As in browsers, an AVIF that is turned by its EXIF or XMP alone is shown as it is stored."""
    pixels = noise(40, 60)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHH4x", 8, 1, 0x0112, 3, 1, 1, 0)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(pixels, "AVIF", **{key: {"exif": exif, "xmp": xmp}[key]})
    if key == "exif" and b"MM\0*" in data:
        data = with_exif_only(data, 6)
    assert read_picture(data, MAX_PIXELS).image.size == (60, 40)


def test_exif_of_50_mb_is_not_parsed() -> None:
    """An AVIF with as much EXIF as no camera writes is read, and still turned by its property."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 50_000_000
    data = encode(noise(40, 60), "AVIF", exif=exif)
    started = time.perf_counter()
    assert read_picture(data, MAX_PIXELS).image.size == (40, 60)
    assert time.perf_counter() - started < 1
    screened = Image.open(BytesIO(screen_heif(data, "AVIF", MAX_PIXELS)))
    assert len(screened.info["exif"]) < 100  # Pillow writes the property into it


@pytest.mark.parametrize(("name", "layers"), [("progressive.avif", 2), ("layers.avif", 4)])
def test_layers_are_read_and_counted(name: str, layers: int) -> None:
    """A progressive AVIF shows its last layer, and counts as the pixels of all its layers."""
    pixels = layers * 224 * 224
    seen = np.asarray(read_picture(fault(name), 4 * pixels).image.convert("L")).astype(int)
    photo = np.asarray(read_picture(fault("photo.png"), MAX_PIXELS).image.convert("L"))
    assert abs(seen - photo).mean() < 4
    with pytest.raises(ImageTooLargeError, match=f"a picture of {pixels} pixels"):
        read_picture(fault(name), 4 * pixels - 4)


def test_animation_is_its_first_frame() -> None:
    """Of an animated AVIF the still picture is decoded, and the frames are hidden."""
    data = fault("animated.avif")
    assert b"moov" in data
    assert b"moov" not in screen_heif(data, "AVIF", MAX_PIXELS)
    first = read_picture(data, MAX_PIXELS).image
    still = Image.open(BytesIO(data))
    np.testing.assert_allclose(np.asarray(first), np.asarray(still), atol=2)


def test_formats_are_told_apart_by_their_brands() -> None:
    """The first brand may be that of any picture; the others then say which it is."""
    for brands, expected in (
        ((b"avif",), "AVIF"),
        ((b"mif1", b"miaf", b"avif"), "AVIF"),
        ((b"avis",), "AVIF"),
        ((b"mif1", b"heic"), "HEIF"),
        ((b"heix",), "HEIF"),
        ((b"isom", b"mp42"), None),
    ):
        data = box(b"ftyp", brands[0], bytes(4), *brands)
        assert name_heif(data) == expected
    assert name_heif(b"") is None


# ---- AV1's headers -------------------------------------------------------------------------------


def bits(*fields: tuple[int, int]) -> bytes:
    """Write numbers (value, bits), and fill the last byte with zeros."""
    text = "".join(f"{value:0{count}b}" for value, count in fields)
    return bytes(int(text[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(text), 8))


def unit(kind: int, content: bytes) -> bytes:
    """Write a unit (OBU) with its size."""
    return bytes([kind << 3 | 2, len(content)]) + content


def units_left() -> Iterator[int]:
    """Count the units of a file."""
    return iter(range(MAX_UNITS))


def test_units_of_all_pictures_together_are_limited() -> None:
    """Each of many pictures may hold many units, which take time, so a file has one limit."""
    picture = unit(1, bits(*PLAIN, *SIDES, *TAIL)) + unit(6, bits((0b0001, 4), (0, 12)))
    content = memoryview(unit(2, b"") * (MAX_UNITS // 2) + picture)
    left = units_left()
    assert read_av1_pixels(content, left) == 300 * 200
    with pytest.raises(ValueError, match=r"^$"):
        read_av1_pixels(content, left)


SIDES = ((15, 4), (15, 4), (299, 16), (199, 16))
TAIL = ((0, 1), (0, 7), (0, 1), (1, 1), (1, 1))
PLAIN = ((0, 3), (1, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5))
TIMED = (*PLAIN[:3], (1, 1), (1, 32), (1, 32), (1, 1), (0b00101, 5), (0, 1), *PLAIN[4:])
LEVEL_8 = (*PLAIN[:7], (8, 5), (1, 1))
DELAYED = (*PLAIN[:4], (1, 1), *PLAIN[5:], (1, 1), (0, 4))


@pytest.mark.parametrize("start", [PLAIN, TIMED, LEVEL_8, DELAYED])
def test_size_is_read_from_every_kind_of_header(start: Any) -> None:
    """A header of an animation may have timing, levels and delays before its size."""
    header = unit(1, bits(*start, *SIDES, *TAIL))
    frame = unit(6, bits((0b0001, 4), (0, 1), (0, 1), (0, 1), (0, 8)))
    assert read_av1_pixels(memoryview(header + frame), units_left()) == 300 * 200


@pytest.mark.parametrize(
    "fields",
    [
        ((0b0001, 4), (0, 1), (0, 1), (1, 1)),
        ((0b0001, 4), (0, 1), (1, 1), (0, 1), (1, 1)),
        ((0b1000, 4), (0, 8)),
        ((0b0011, 4), (0, 8)),
    ],
    ids=["own size", "own size with screen tools", "shows another", "needs another"],
)
def test_frame_of_another_size_than_its_header_is_rejected(fields: Any) -> None:
    """A frame that has a size of its own, or is made of other frames, is damage."""
    header = unit(1, bits(*PLAIN, *SIDES, *TAIL))
    with pytest.raises(ValueError, match=r"^$"):
        read_av1_pixels(memoryview(header + unit(6, bits(*fields, (0, 16)))), units_left())


@given(content=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_measured_or_rejected(content: bytes) -> None:
    """Arbitrary bytes have a size, or raise an error that means damage."""
    for head in (b"", unit(1, bits(*PLAIN, *SIDES, *TAIL))):
        try:
            assert read_av1_pixels(memoryview(head + content), units_left()) > 0
        except (ValueError, LookupError, UnreadableImageError):
            continue
