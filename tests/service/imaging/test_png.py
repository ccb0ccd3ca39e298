"""PNG files: the chunks that their pixels need."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from service.errors import UnreadableImageError
from service.imaging import read_picture
from service.imaging.png import MAX_PIXEL_CHUNKS, strip_png
from tests.service.images import encode, noise

MAX_PIXELS = 1_000_000
HEADER_BYTES = 33
END_BYTES = 12
PHOTO = encode(np.dstack([noise(20, 30, seed) for seed in range(3)]))
TURNED_EXIF = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
OTHER_CHUNKS = [
    *("tEXt", "zTXt", "iTXt", "iCCP", "tIME", "pHYs", "gAMA", "cHRM", "sRGB", "sBIT", "bKGD"),
    *("hIST", "sPLT", "eXIf", "cICP", "mDCV", "cLLI", "prVt", "iDOT"),
]


def chunk(kind: str, content: bytes, is_sound: bool = True) -> bytes:
    """Write a chunk, with a wrong checksum unless it ``is_sound``."""
    named = kind.encode() + content
    checksum = zlib.crc32(named) ^ (not is_sound)
    return struct.pack(">I", len(content)) + named + struct.pack(">I", checksum)


def raw_profile(more_bytes: int) -> bytes:
    """Write EXIF as text, as ImageMagick does, with ``more_bytes`` of nothing after it."""
    exif = b"Exif\0\0" + TURNED_EXIF + bytes(more_bytes)
    return b"\nexif\n%8d\n" % len(exif) + exif.hex().encode()


def pixels_of(data: bytes) -> np.ndarray:
    """Read a file, uint8 ``[height, width, 3]``."""
    return np.asarray(read_picture(data, MAX_PIXELS).image)


@pytest.mark.parametrize("kind", OTHER_CHUNKS)
@pytest.mark.parametrize("place", [HEADER_BYTES, len(PHOTO) - END_BYTES])
@pytest.mark.parametrize(
    ("content", "is_sound"), [(b"", True), (b"a\0\0damaged", True), (b"a\0\0damaged", False)]
)
def test_chunk_that_is_not_about_pixels_never_matters(
    kind: str, place: int, content: bytes, is_sound: bool
) -> None:
    """Such a chunk may be empty or damaged, and may have a wrong checksum."""
    data = PHOTO[:place] + chunk(kind, content, is_sound) + PHOTO[place:]
    np.testing.assert_array_equal(pixels_of(data), pixels_of(PHOTO))


@pytest.mark.parametrize(
    "chunks",
    [
        chunk("zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000))),
        chunk("iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(50_000_000))),
        chunk("iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000))),
        chunk("iCCP", b"a\0\0" + zlib.compress(bytes(100_000))) * 1000,
        chunk("tEXt", b"workflow\0" + b"x" * 5_000_000),
        chunk("tEXt", b"a\0") * 200_000,
        chunk("t\1Xt", b"a name that is not allowed"),
    ],
    ids=["text", "international text", "profile", "profiles", "plain", "many", "name"],
)
def test_text_and_profiles_may_be_large(chunks: bytes) -> None:
    """Text and profiles are neither unpacked nor kept, however large and many they are."""
    started = time.thread_time()  # of this thread alone, so that other processes do not count
    data = PHOTO[:HEADER_BYTES] + chunks + PHOTO[HEADER_BYTES:]
    np.testing.assert_array_equal(pixels_of(data), pixels_of(PHOTO))
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    "chunks",
    [
        chunk("tEXt", b""),
        chunk("eXIf", b"", is_sound=False),
        chunk("tRNS", b"", is_sound=False),
        chunk("IDAT", b""),
        chunk("tEXt", b"x" * 31) + chunk("IHDR", b"x"),
        chunk("tEXt", b"x" * 32),
    ],
    ids=["empty", "exif", "transparency", "no pixels", "two lengths", "longer"],
)
@pytest.mark.parametrize("place", [HEADER_BYTES, len(PHOTO) - END_BYTES])
def test_very_many_short_chunks_are_skipped_at_once(chunks: bytes, place: int) -> None:
    """Millions of chunks that are not about pixels take no more time than a large photo."""
    data = PHOTO[:place] + chunks * (4_000_000 // len(chunks)) + PHOTO[place:]
    started = time.process_time()
    np.testing.assert_array_equal(pixels_of(data), pixels_of(PHOTO))
    assert time.process_time() - started < 2


def test_pixels_in_chunks_of_one_byte_are_read_up_to_a_limit() -> None:
    """Each byte of the pixels may have its own chunk, but a file of very many is rejected soon."""
    start = HEADER_BYTES + 8
    packed = PHOTO[start : start + int.from_bytes(PHOTO[HEADER_BYTES:][:4])]
    assert len(PHOTO) == start + len(packed) + 4 + END_BYTES
    split = b"".join(chunk("IDAT", packed[place : place + 1]) for place in range(len(packed)))
    data = PHOTO[:HEADER_BYTES] + split + PHOTO[-END_BYTES:]
    np.testing.assert_array_equal(pixels_of(data), pixels_of(PHOTO))
    more = PHOTO[:HEADER_BYTES] + split + chunk("IDAT", b"x") * MAX_PIXEL_CHUNKS
    with pytest.raises(UnreadableImageError, match="pixels in more than 100000 chunks"):
        pixels_of(more)


def test_animation_shows_its_default_image() -> None:
    """The frames of an APNG are left out, so damaged frames do not matter."""
    images = [Image.fromarray(noise(20, 30, seed)) for seed in range(3)]
    data = encode(images[0], save_all=True, append_images=images[1:])
    assert data.count(b"fdAT") == 2
    np.testing.assert_array_equal(pixels_of(data), noise(20, 30))
    np.testing.assert_array_equal(pixels_of(data.replace(b"fcTL", b"fcTl")), noise(20, 30))


def test_wrong_checksum_of_pixels_never_matters() -> None:
    """Browsers do not check the pixels' checksums: that of the chunk, and that of zlib."""
    start = PHOTO.index(b"IDAT") + 4
    packed = PHOTO[start : start + int.from_bytes(PHOTO[start - 8 : start - 4])]
    for pixels in (
        chunk("IDAT", packed, is_sound=False),
        chunk("IDAT", packed[:-1] + bytes([packed[-1] ^ 1])),
        chunk("IDAT", packed[:-4]),
        chunk("IDAT", packed + b"tail"),
        chunk("IDAT", b"") + chunk("IDAT", packed[:9]) + chunk("IDAT", packed[9:]),
    ):
        data = PHOTO[:HEADER_BYTES] + pixels + PHOTO[-END_BYTES:]
        np.testing.assert_array_equal(pixels_of(data), pixels_of(PHOTO))


@pytest.mark.parametrize("cut_bytes", [1, 12, 16])
def test_png_may_lack_its_end(cut_bytes: int) -> None:
    """A file that lacks what follows its pixels is read."""
    np.testing.assert_array_equal(pixels_of(PHOTO[:-cut_bytes]), pixels_of(PHOTO))


@pytest.mark.parametrize("cut_bytes", [40, 100, 1000])
def test_png_that_lacks_pixels_is_rejected(cut_bytes: int) -> None:
    """A file that ends within its pixels is rejected, and the error names the format."""
    with pytest.raises(UnreadableImageError, match=r"the PNG image of .* bytes is .*incomplete"):
        pixels_of(PHOTO[:-cut_bytes])


def test_wrong_checksum_of_the_header_or_palette_is_named() -> None:
    """Browsers do not show such files; the error says which checksum is wrong."""
    palette = encode(Image.fromarray(noise(20, 30)).convert("P"))
    for data, kind in ((PHOTO, "IHDR"), (palette, "PLTE")):
        start = data.index(kind.encode())
        end = start + 4 + int.from_bytes(data[start - 4 : start])
        damaged = data[:end] + bytes(4) + data[end + 4 :]
        with pytest.raises(UnreadableImageError, match=f"wrong checksum in its chunk {kind}"):
            pixels_of(damaged)


def test_transparency_is_kept() -> None:
    """Transparency by a colour, or in a palette, is seen; a damaged one is left out."""
    red = Image.new("RGB", (20, 30), "red")
    for data in (encode(red, transparency=(255, 0, 0)), encode(red.quantize(4), transparency=0)):
        assert (pixels_of(data) == 255).all()
        start = data.index(b"tRNS") + 4
        end = start + int.from_bytes(data[start - 8 : start - 4])
        for other in (bytes(4), b""):
            cut = chunk("tRNS", b"") if not other else data[start - 8 : end] + other
            seen = pixels_of(data[: start - 8] + cut + data[end + 4 :])
            assert (seen == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("chunks", "is_turned"),
    [
        (chunk("eXIf", TURNED_EXIF), True),
        (chunk("eXIf", TURNED_EXIF + bytes(1_000_000)), True),
        (chunk("eXIf", TURNED_EXIF, is_sound=False), False),
        (chunk("eXIf", b"Exif\0\0" + TURNED_EXIF), False),
        (chunk("zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(0))), False),
        (chunk("zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(900_000))), False),
        (chunk("iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>"), False),
    ],
    ids=["EXIF", "large EXIF", "damaged", "prefix", "raw profile", "large raw profile", "XMP"],
)
def test_only_exif_turns_a_png(chunks: bytes, is_turned: bool) -> None:
    """As in Chromium, the chunk eXIf turns a PNG, and no text does: text is not even unpacked."""
    data = PHOTO[:HEADER_BYTES] + chunks + PHOTO[HEADER_BYTES:]
    expected = np.rot90(pixels_of(PHOTO), -1) if is_turned else pixels_of(PHOTO)
    np.testing.assert_array_equal(pixels_of(data), expected)
    assert strip_png(data).data == strip_png(PHOTO).data
