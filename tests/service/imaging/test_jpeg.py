"""JPEG files: what their first picture needs, and files that lack their end."""

from __future__ import annotations

import struct
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging import InputSpec, read_image, read_picture
from service.imaging.jpeg import MAX_SCANS, strip_jpeg
from tests.service.images import encode, noise

SIZE = (28, 28)
GREY = InputSpec("item-on-black", SIZE)
MAX_PIXELS = 1_000_000
PHOTO = encode(noise(64, 64), "JPEG")


def segment(kind: int, content: bytes) -> bytes:
    """Write a segment."""
    return struct.pack(">BBH", 0xFF, kind, 2 + len(content)) + content


def with_segments(*segments: bytes) -> bytes:
    """Put segments at the beginning of the photo."""
    return PHOTO[:2] + b"".join(segments) + PHOTO[2:]


def orientation(value: int, kind: int = 3, count: int = 1) -> bytes:
    """Write EXIF that holds nothing but an orientation."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, kind, count, value, 0, 0)


# ---- scans ---------------------------------------------------------------------------------------


def test_scans_are_counted_whatever_a_jpeg_is_called() -> None:
    """A JPEG of too many scans is rejected, also as the first picture of a stereo photo (MPO)."""
    photo, stereo = BytesIO(), BytesIO()
    picture = Image.fromarray(noise(64, 64))
    picture.save(photo, "JPEG")
    picture.save(stereo, "MPO", save_all=True, append_images=[picture])
    for jpeg in (photo.getvalue(), stereo.getvalue()):
        assert read_image(jpeg, GREY, MAX_PIXELS).image.shape == SIZE
        start = jpeg.index(b"\xff\xda")
        scan = jpeg[start : jpeg.index(b"\xff\xd9")]
        with pytest.raises(UnreadableImageError, match="scans"):
            read_image(jpeg[:start] + scan * 101 + jpeg[start:], GREY, MAX_PIXELS)


def test_progressive_jpeg_of_too_many_scans_is_rejected() -> None:
    """The scans of a progressive JPEG are counted, even if they have no data."""
    jpeg = encode(noise(64, 64), "JPEG", progressive=True)
    start = jpeg.index(b"\xff\xda")
    end = jpeg.index(b"\xff", start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big"))
    with pytest.raises(UnreadableImageError, match="scans"):
        read_image(jpeg[:start] + jpeg[start:end] * 2000 + jpeg[start:], GREY, MAX_PIXELS)


def test_scans_outside_of_the_first_picture_do_not_count() -> None:
    """Neither a preview nor a later picture of many scans is read, so neither is rejected."""
    start, end = PHOTO.index(b"\xff\xda"), len(PHOTO) - 2
    many = PHOTO[:start] + PHOTO[start:end][:20] * (MAX_SCANS + 1) + PHOTO[end:]
    for jpeg in (PHOTO + many, with_segments(segment(0xE1, many)), with_segments() + many * 9):
        assert strip_jpeg(jpeg).data == strip_jpeg(PHOTO).data
        assert read_picture(jpeg, MAX_PIXELS).source_pixels == 64 * 64


def test_bytes_after_a_jpeg_are_not_scans() -> None:
    """A photo with a film after it, as some phones write it, is read whatever the film holds."""
    film = np.random.default_rng(0).bytes(100_000).replace(b"\xff", b"\xff\xda")
    assert film.count(b"\xff\xda") > MAX_SCANS
    np.testing.assert_array_equal(
        read_image(PHOTO + film, GREY, MAX_PIXELS).image, read_image(PHOTO, GREY, MAX_PIXELS).image
    )


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (b"\xff\xc9\0\x0b\x08", "arithmetic"),
        (b"\xff\xc3\0\x0b\x08", "lossless"),
        (b"\xff\xc5\0\x0b\x08", "hierarchical"),
        (b"\xff\xf7\0\x0b\x08", "JPEG-LS"),
        (b"\xff\xc1\0\x0b\x0c", "of 12 bits a sample"),
    ],
)
def test_coding_that_browsers_do_not_show_is_named(frame: bytes, what: str) -> None:
    """A JPEG of a rare coding is rejected, and the error says which coding."""
    assert PHOTO.count(b"\xff\xc0\0\x0b\x08") == 1
    with pytest.raises(UnreadableImageError, match=f"the JPEG image is .*{what}"):
        read_image(PHOTO.replace(b"\xff\xc0\0\x0b\x08", frame), GREY, MAX_PIXELS)


# ---- segments that are not about pixels ----------------------------------------------------------


@pytest.mark.parametrize(
    "segments",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, b""),
        segment(0xE1, b"Exif\0\0damaged"),
        segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 100,
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\1damaged"),
        segment(0xE2, b"MPF\0damaged"),
        segment(0xED, b"Photoshop 3.0\0008BIM"),
        segment(0xED, b"Photoshop 3.0\0008BIM\x04\x04\x20"),
        segment(0xEE, b"Adobe"),
        segment(0xFE, b"x" * 60_000) * 50,
        b"\xff\xe5\0\0",
        b"\xff\xe0\0\2" * 200_000,
        b"\xff\x01",
    ],
    ids=lambda segments: repr(segments[2:20]),
)
def test_segment_of_an_application_never_matters(segments: bytes) -> None:
    """Segments of applications and comments may be damaged, large and many."""
    expected = read_picture(PHOTO, MAX_PIXELS).image
    started = time.perf_counter()
    seen = read_picture(with_segments(segments), MAX_PIXELS).image
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(expected))
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "segments",
    [
        segment(0xFE, b""),
        segment(0xFE, b"") + segment(0xE2, b"x") + segment(0xE0, b"JFIF\0"),
        segment(0xE1, b"Exif\0\0" + orientation(6)),
        segment(0xE1, b"Exif\0"),
        segment(0xE0, b"JFIF\0" + bytes(11)),
        segment(0xEE, b"Adobe"),
        segment(0xFE, bytes(30)),
        b"\xff\xff\xfe\0\0",
        b"x" + segment(0xFE, b""),
        b"\xff\xd0" + segment(0xFE, b""),
    ],
    ids=lambda segments: repr(segments[:20]),
)
@pytest.mark.parametrize("place", [2 + len(segment(0xFE, b"")), -2])
def test_very_many_short_segments_are_skipped_at_once(segments: bytes, place: int) -> None:
    """Millions of segments that are not about pixels take no more time than a large photo."""
    photo = encode(noise(64, 64), "JPEG", exif=b"Exif\0\0" + orientation(3))
    photo = photo[:2] + segment(0xFE, b"") + photo[2:]
    many = segments * (4_000_000 // len(segments))
    started = time.process_time()
    seen = read_picture(photo[:place] + many + photo[place:], MAX_PIXELS).image
    assert time.process_time() - started < 2
    is_first = place > 0 and orientation(6) in segments
    expected = np.rot90(np.asarray(read_picture(PHOTO, MAX_PIXELS).image), -1 if is_first else 2)
    np.testing.assert_array_equal(np.asarray(seen), expected)


def test_very_many_colour_segments_are_rejected() -> None:
    """Each Adobe segment changes how colours are read, so their number is limited."""
    data = with_segments(segment(0xEE, b"Adobe" + bytes(7)) * 100_000)
    with pytest.raises(UnreadableImageError, match="more than 1000 tables"):
        read_picture(data, MAX_PIXELS)


def test_segments_that_tell_colours_are_kept() -> None:
    """A JPEG whose Adobe segment says that it stores RGB, or inverted CMYK, has right colours."""
    rgb = Image.new("RGB", (32, 32), (200, 30, 90))
    jpeg = encode(rgb, "JPEG", keep_rgb=True, quality=95)
    for data in (jpeg, encode(rgb.convert("CMYK"), "JPEG", quality=95)):
        seen = np.asarray(read_picture(data, MAX_PIXELS).image).astype(int)
        np.testing.assert_allclose(seen, np.asarray(rgb), atol=5)


@pytest.mark.parametrize(
    ("segments", "is_turned"),
    [
        ([b"Exif\0\0" + orientation(6)], True),
        ([b"Exif\0\xff" + orientation(6)], True),
        ([b"Exif\0\0" + orientation(6), b"Exif\0\0" + orientation(1)], True),
        ([b"Exif\0\0damaged", b"Exif\0\0" + orientation(6)], False),
        ([b"Exif" + orientation(6)], False),
        ([b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"], False),
        ([b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>6</tiff:Orientation>"], False),
    ],
)
def test_first_exif_turns_a_photo(segments: list[bytes], is_turned: bool) -> None:
    """The first EXIF of a JPEG turns it, and nothing else does."""
    jpeg = encode(noise(20, 30), "JPEG")
    exif = b"".join(segment(0xE1, content) for content in segments)
    size = read_picture(jpeg[:2] + exif + jpeg[2:], MAX_PIXELS).image.size
    assert size == ((20, 30) if is_turned else (30, 20))


# ---- files that lack their end -------------------------------------------------------------------

CODINGS = [
    {},
    {"progressive": True},
    {"restart_marker_blocks": 1},
    {"restart_marker_blocks": 3, "progressive": True},
    {"subsampling": 0, "quality": 30},
]


@pytest.mark.parametrize("options", CODINGS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_may_lack_its_end_marker_only(mode: str, options: dict[str, int]) -> None:
    """Of all beginnings of a JPEG, only those that hold every pixel are read.

    This holds for a cut at a restart, between scans, and within the header of a scan, too. The last
    bytes before the end marker may say nothing about pixels.
    """
    rows, columns = np.indices((40, 56))
    pixels = np.dstack([rows * 6, columns * 4, noise(40, 56)]).astype(np.uint8)
    jpeg = encode(Image.fromarray(pixels).convert(mode), "JPEG", **options)
    whole = np.asarray(read_picture(jpeg, MAX_PIXELS).image)
    for end in (len(jpeg) - 1, len(jpeg) - 2):
        for tail in (b"", bytes(100), b"text"):
            seen = read_picture(jpeg[:end] + tail, MAX_PIXELS).image
            np.testing.assert_array_equal(np.asarray(seen), whole)
    for end in range(jpeg.index(b"\xff\xda"), len(jpeg) - 2):
        try:
            seen = read_picture(jpeg[:end], MAX_PIXELS).image
        except UnreadableImageError:
            continue
        assert len(jpeg) - end < 40
        np.testing.assert_array_equal(np.asarray(seen), whole)


def test_jpeg_of_one_scan_a_component_may_lack_its_end_marker_only() -> None:
    """A file that ends after the first of three scans has grey pixels, and is rejected."""
    jpeg = encode(Image.fromarray(noise(16, 16)).convert("RGB"), "JPEG", subsampling=0)
    start = jpeg.index(b"\xff\xda")
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(20)
    with pytest.raises(UnreadableImageError, match="incomplete"):
        read_picture(jpeg[:start] + scan, MAX_PIXELS)


def test_pixels_of_a_jpeg_without_its_end_count_twice() -> None:
    """It is decoded twice, so it takes the time and the memory of twice as many pixels."""
    jpeg = encode(noise(80, 100), "JPEG")
    assert read_picture(jpeg, 8_000).source_pixels == 8_000
    assert read_picture(jpeg[:-2], 16_000).source_pixels == 8_000
    with pytest.raises(ImageTooLargeError, match="at most 4000 are allowed"):
        read_picture(jpeg[:-2], 8_000)
