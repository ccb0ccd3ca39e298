"""From the bytes of a file to the upright picture in it."""

from __future__ import annotations

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from service.errors import ImageError, ImageTooLargeError, UnreadableImageError
from service.imaging import InputSpec, read_image, read_picture
from service.imaging.files import ORIENTATIONS
from service.machine.sizing import BYTES_PER_PIXEL
from tests.service.images import FAULTS, encode, fault, noise

SIZE = (28, 28)
GREY = InputSpec("item-on-black", SIZE)
MAX_PIXELS = 1_000_000


def test_picture_has_every_pixel_of_the_file() -> None:
    """Without a shortest edge the picture is the upright file, pixel for pixel."""
    pixels = noise(300, 200)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    picture = read_picture(encode(pixels, exif=exif), MAX_PIXELS)
    assert picture.source_pixels == pixels.size
    np.testing.assert_array_equal(np.asarray(picture.image), np.rot90(pixels, -1))


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40)])
def test_picture_is_flattened_over_white(alpha: int, expected: int) -> None:
    """The picture is RGB without transparency: white shows where the file is transparent."""
    picture = read_picture(encode(Image.new("RGBA", (30, 20), (40, 40, 40, alpha))), MAX_PIXELS)
    assert picture.image.mode == "RGB"
    assert (np.asarray(picture.image) == expected).all()


def test_large_picture_is_averaged_down_to_a_shortest_edge() -> None:
    """With a shortest edge a large picture comes back at one to two times that edge."""
    picture = read_picture(encode(noise(700, 900)), MAX_PIXELS, shortest=100)
    assert 100 <= min(picture.image.size) < 200
    assert picture.source_pixels == 700 * 900


FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "AVIF", "HEIF"]


@pytest.mark.parametrize("file_format", FORMATS)
def test_damaged_files_never_crash(file_format: str) -> None:
    """Files with bytes changed, cut off or added are read or raise ImageError; nothing else."""
    good = encode(noise(16, 16), file_format)
    check_mutations(good)


@pytest.mark.parametrize(
    "name",
    [
        "transparent.avif",
        "rotated.avif",
        "animated.avif",
        "progressive.avif",
        "layers.avif",
        "rotated.heic",
        "tiles.heic",
    ],
)
def test_damaged_containers_never_crash(name: str) -> None:
    """The same holds for the tables of AVIF and HEIC files, which are at the beginning."""
    check_mutations(fault(name), end=600)


def check_mutations(good: bytes, end: int | None = None) -> None:
    """Change bytes of ``good`` up to ``end``, cut it off and append to it; read every result."""
    last = min(end or len(good), len(good)) - 1

    @given(
        changes=st.lists(st.tuples(st.integers(0, last), st.integers(0, 255)), max_size=8),
        end=st.one_of(st.just(len(good)), st.integers(0, len(good))),
        tail=st.binary(max_size=16),
    )
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def check(changes: list[tuple[int, int]], end: int, tail: bytes) -> None:
        data = bytearray(good)
        for position, value in changes:
            data[position] = value
        try:
            image = read_image(bytes(data[:end] + tail), GREY, MAX_PIXELS).image
        except ImageError:
            return
        assert image.shape == SIZE

    check()


@given(data=st.binary(max_size=200))
def test_bytes_that_are_not_an_image_are_rejected(data: bytes) -> None:
    """Arbitrary bytes are unreadable."""
    with pytest.raises(UnreadableImageError):
        read_image(data, GREY, MAX_PIXELS)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (fault("photo.tiff"), "a TIFF image"),
        (b"MM\0*" + bytes(100), "a TIFF image"),
        (encode(noise(8, 8), "TIFF", big_tiff=True), "a TIFF image"),
        (fault("vector.svg"), "an SVG drawing"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\xff\x0a" + bytes(100), "a JPEG XL image"),
        (encode(noise(8, 8), "JPEG2000"), "a JPEG 2000 image"),
        (encode(noise(16, 16), "ICO"), "an icon"),
        (b"8BPS" + bytes(100), "a Photoshop image"),
        (b"PK\3\4" + bytes(100), "a ZIP archive"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "a video"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML page"),
        (b"\n<html><title>404</title>", "an HTML page"),
        (b"data:image/png;base64,iVBORw0KGgo=", "a data URL, not the bytes of an image"),
        (b"/9j/4AAQSkZJRg==", "an image in Base64, not its bytes"),
    ],
)
def test_format_that_is_not_read_is_named(data: bytes, what: str) -> None:
    """The error says what the upload is, and which formats are read."""
    with pytest.raises(
        UnreadableImageError,
        match=rf"the upload is {what}; send JPEG, PNG, WebP, AVIF, BMP",
    ):
        read_image(data, GREY, MAX_PIXELS)


@pytest.mark.parametrize("data", [b"x", b"404 page not found", bytes(2000)])
def test_unknown_format_is_not_named(data: bytes) -> None:
    """The error does not guess what an upload is that nothing identifies."""
    message = f"^the upload of {len(data)} bytes is not an image"
    with pytest.raises(UnreadableImageError, match=message):
        read_image(data, GREY, MAX_PIXELS)


READ_WITHOUT_PILLOW_HEIF = """
import sys
from pathlib import Path

sys.modules["pillow_heif"] = None  # as if it were not installed
from service.errors import UnreadableImageError
from service.imaging import InputSpec, read_image

read_image(Path(sys.argv[2]).read_bytes(), InputSpec("item-on-black", (28, 28)), 1_000_000)
try:
    read_image(Path(sys.argv[1]).read_bytes(), InputSpec("item-on-black", (28, 28)), 1_000_000)
except UnreadableImageError as error:
    print(error)
"""


def test_heic_is_named_where_its_extra_is_not_installed() -> None:
    """Without pillow-heif a HEIC is rejected by name, and other files are read as before."""
    command = [sys.executable, "-c", READ_WITHOUT_PILLOW_HEIF]
    files = [FAULTS / "photo.heic", FAULTS / "photo.avif"]
    told = subprocess.run([*command, *files], capture_output=True, text=True, check=True)
    assert told.stdout == ("the upload is a HEIC image; send JPEG, PNG, WebP, AVIF, BMP or GIF\n")


def test_unusual_files_give_the_same_input_as_the_plain_photo() -> None:
    """Depth, colour space, transparency, frames and rotation are undone, up to small errors.

    JPEG, AVIF and HEIC are lossy, and a palette has fewer colours.
    """
    plain = read_image(fault("photo.png"), GREY, MAX_PIXELS).image.astype(int)
    for name in ("grey-16-bit.png", "animated.gif"):
        np.testing.assert_array_equal(
            read_image(fault(name), GREY, MAX_PIXELS).image, plain, err_msg=name
        )
    for name in (
        "palette-transparent.png",
        "cmyk.jpg",
        "exif-rotated.jpg",
        "photo.avif",
        "rotated.avif",
        "transparent.avif",
        "animated.avif",
        "progressive.avif",
        "photo.heic",
        "rotated.heic",
        "tiles.heic",
    ):
        seen = read_image(fault(name), GREY, MAX_PIXELS).image
        np.testing.assert_allclose(seen, plain, atol=8, err_msg=name)
        assert abs(seen - plain).mean() < 0.5, name


def test_pixels_are_counted_before_decoding() -> None:
    """The limit is exact, and holds for what the header declares, even if no pixel follows."""
    assert read_image(encode(noise(100, 100)), GREY, 10_000).image.shape == SIZE
    with pytest.raises(ImageTooLargeError, match=r"100 x 101.*at most 10000"):
        read_image(encode(noise(101, 100)), GREY, 10_000)
    header_only = encode(noise(101, 100))[:50]
    with pytest.raises(ImageTooLargeError):
        read_image(header_only, GREY, 10_000)
    with pytest.raises(ImageTooLargeError):
        read_image(fault("bomb-30000x30000.png"), GREY, MAX_PIXELS)


@pytest.mark.parametrize(
    ("file_format", "mode", "most"),
    [
        ("WEBP", "RGB", 10_000),
        ("AVIF", "RGB", 5_000),
        ("HEIF", "RGB", 10_000),
        ("HEIF", "RGBA", 6_600),
    ],
)
def test_pixels_that_take_more_memory_count_more(file_format: str, mode: str, most: int) -> None:
    """Formats whose decoders take more memory a pixel are allowed fewer pixels."""
    image = Image.fromarray(noise(most // 100, 100)).convert(mode)
    assert read_image(encode(image, file_format), GREY, 20_000).image.shape == SIZE
    with pytest.raises(ImageTooLargeError, match=f"{file_format} image has .* pixels"):
        read_image(encode(image.resize((100, most // 100 + 2)), file_format), GREY, 20_000)


READ_AND_TELL_PEAK = """
import re, sys
from pathlib import Path
from PIL import Image
from service.imaging import InputSpec, read_image

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

Image.init()
data = Path(sys.argv[1]).read_bytes()
before = peak()
pixels = read_image(data, InputSpec("item-on-black", (28, 28)), 150_000_000).source_pixels
print(1024 * (peak() - before) / pixels)
"""


def peak_bytes_per_pixel(data: bytes, folder: Path) -> float:
    """Read an image in a fresh process; return how much its memory grew, in bytes a pixel."""
    file = folder / "image"
    file.write_bytes(data)
    command = [sys.executable, "-c", READ_AND_TELL_PEAK, str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(told.stdout)


@pytest.mark.parametrize(
    ("mode", "file_format"), [("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG")]
)
def test_large_image_is_never_copied_as_a_whole(
    mode: str, file_format: str, tmp_path: Path
) -> None:
    """Reading takes the 4 bytes a pixel that the decoded image has, and little more."""
    pixels = np.tile(noise(100, 100), (30, 30))
    image = Image.fromarray(pixels.astype(np.uint16) * 257 if mode == "I;16" else pixels)
    data = encode(image if mode == "I;16" else image.convert(mode), file_format)
    assert peak_bytes_per_pixel(data, tmp_path) < 6


def test_large_jpeg_is_decoded_at_a_smaller_scale(tmp_path: Path) -> None:
    """A JPEG of 24 megapixels takes a small part of the 3 bytes a pixel that all pixels take."""
    photo = Image.fromarray(noise(40, 60)).convert("RGB").resize((6000, 4000))
    assert peak_bytes_per_pixel(encode(photo, "JPEG"), tmp_path) < 1


@pytest.mark.parametrize(("name", "weight"), [("12-bit-2000x2000.avif", 4)])
def test_memory_of_a_pixel_is_within_its_weight(name: str, weight: int, tmp_path: Path) -> None:
    """The costliest AVIF, deep, transparent and with film grain, takes what its pixels count."""
    peak = peak_bytes_per_pixel(fault(name), tmp_path)
    assert 20 < peak < weight * BYTES_PER_PIXEL


COUNT_THREADS = """
import sys, threading, time
from pathlib import Path
from service.imaging import InputSpec, read_image

tasks = Path("/proc/self/task")
most = 0

def watch():
    global most
    while not is_done:
        most = max(most, len(list(tasks.iterdir())))
        time.sleep(0.0005)

read_image(Path(sys.argv[1]).read_bytes(), InputSpec("item-on-black", (28, 28)), 4_000_000)
is_done = False
watcher = threading.Thread(target=watch)
watcher.start()
before = len(list(tasks.iterdir()))
for _ in range(3):
    read_image(Path(sys.argv[1]).read_bytes(), InputSpec("item-on-black", (28, 28)), 50_000_000)
is_done = True
watcher.join()
print(most - before)
"""


@pytest.mark.parametrize(("file_format", "expected"), [("AVIF", 0), ("HEIF", 1)])
def test_decoders_start_no_threads_of_their_own(
    file_format: str, expected: int, tmp_path: Path
) -> None:
    """An AVIF is decoded by the thread that reads it; for a HEIC that thread waits on one other."""
    file = tmp_path / "image"
    file.write_bytes(encode(noise(1000, 900), file_format))
    command = [sys.executable, "-c", COUNT_THREADS, str(file)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(told.stdout) <= expected


def test_large_image_is_the_same_in_every_mode() -> None:
    """A large grey image is read alike as grey, with a palette, in colour, opaque or deep."""
    rows, columns = np.mgrid[:1500, :1100]
    ellipse = ((rows - 700) / 500) ** 2 + ((columns - 500) / 300) ** 2
    grey = Image.fromarray(np.clip(255 * (1.5 - ellipse), 0, 255).astype(np.uint8))
    expected = read_image(encode(grey), GREY, 2_000_000).image
    assert expected.max() > 0
    for image in (
        *(grey.convert(mode) for mode in ("P", "RGB", "RGBA", "LA")),
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
    ):
        np.testing.assert_array_equal(
            read_image(encode(image), GREY, 2_000_000).image, expected, image.mode
        )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photo_may_have_odd_exif(orientation: int) -> None:
    """A photo is upright by its orientation, even if its EXIF has a resolution in words."""
    pixels = noise(64, 48)
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(encode(pixels, exif=exif)))))
    entries = struct.pack("<HHIHH", Base.Orientation, 3, 1, orientation, 0) + struct.pack(
        "<HHI4s", Base.XResolution, 2, 4, b"odd"
    )
    odd = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    image = encode(pixels, "PNG", exif=odd)
    size = expected.shape
    np.testing.assert_array_equal(
        read_image(image, InputSpec("item-on-black", (size[0], size[1])), MAX_PIXELS).image,
        expected,
    )


def test_large_exif_turns_an_image() -> None:
    """EXIF of any size turns an image: only its first directory is read."""
    pixels = noise(28, 20)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif[Base.ImageDescription] = "x" * 70_000
    turned = read_image(
        encode(pixels, exif=exif), InputSpec("item-on-black", (20, 28)), MAX_PIXELS
    ).image
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_alike(file_format: str, orientation: int) -> None:
    """An image with EXIF's orientation is upright in each format that can hold one."""
    upright = np.zeros((120, 80), np.uint8)
    upright[:60, :40], upright[60:, :40] = 255, 128
    turn = ORIENTATIONS.get({6: 8, 8: 6}.get(orientation, orientation))
    image = Image.fromarray(upright).convert("RGB")
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    stored = image if turn is None else image.transpose(turn)
    data = encode(stored, file_format, exif=exif.tobytes(), quality=95)
    seen = np.asarray(read_picture(data, MAX_PIXELS).image.convert("L")).astype(int)
    np.testing.assert_allclose(seen, upright, atol=40)
    assert abs(seen - upright).mean() < 2


@pytest.mark.parametrize("exif", [b"junk", b"", b"II*\0", b"Exif\0\0junk" * 100])
def test_damaged_exif_of_a_webp_never_matters(exif: bytes) -> None:
    """A WebP with EXIF that cannot be read is shown as it is stored."""
    pixels = noise(20, 30)
    plain, odd = (
        read_picture(encode(pixels, "WEBP", **options), MAX_PIXELS).image
        for options in ({}, {"exif": exif, "xmp": b"<x tiff:Orientation='6'/>"})
    )
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(odd))


def test_very_long_edges_are_rejected() -> None:
    """An image with an edge of more than 32,768 pixels is rejected by its header."""
    with pytest.raises(ImageTooLargeError, match="32768 a side"):
        read_image(encode(Image.new("L", (40_000, 2))), GREY, 10_000_000)


def test_invisible_colours_do_not_show() -> None:
    """A large transparent picture looks the same whatever colour its invisible pixels have."""
    visible = np.zeros((400, 400, 4), np.uint8)
    visible[100:300, 100:300] = (200, 200, 200, 255)
    hidden = visible.copy()
    hidden[visible[..., 3] == 0] = (0, 255, 0, 0)
    image = read_image(encode(Image.fromarray(visible)), GREY, MAX_PIXELS).image
    np.testing.assert_array_equal(
        read_image(encode(Image.fromarray(hidden)), GREY, MAX_PIXELS).image, image
    )
    assert image[14, 14] == 55
