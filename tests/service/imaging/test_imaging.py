"""From image bytes to the model's input."""

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
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from service.errors import ImageTooLargeError, UnreadableImageError
from service.imaging.model_input import read_image
from service.imaging.screening import MAX_JPEG_SCANS
from tests.service.images import encode, fault, noise

SIZE = (28, 28)
MAX_PIXELS = 1_000_000
ITEMS = sorted((Path(__file__).parents[2] / "data" / "fashion-mnist-sample").glob("*.png"))
ROWS_PER_STRIP = 278  # TIFF's tag


@given(pixels=hnp.arrays(np.uint8, SIZE))
@settings(max_examples=50, deadline=None)
def test_grey_image_of_the_models_size_is_taken_pixel_for_pixel(pixels: np.ndarray) -> None:
    """Any 28 x 28 grey image passes bit for bit, saved as grey, as RGB or as 16-bit."""
    files = (
        encode(pixels),
        encode(np.dstack([pixels] * 3)),
        encode(Image.fromarray(pixels.astype(np.uint16) * 257)),
    )
    for data in files:
        np.testing.assert_array_equal(read_image(data, SIZE, MAX_PIXELS).image, pixels)


@given(
    pixels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 60), st.integers(1, 60), st.just(3))),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=100, deadline=None)
def test_any_image_becomes_an_input_of_the_models_size(
    pixels: np.ndarray, size: tuple[int, int]
) -> None:
    """Whatever the shape of the image and of the model's input, the result is uint8 of that shape."""
    image = read_image(encode(pixels), size, MAX_PIXELS).image
    assert image.shape == size
    assert image.dtype == np.uint8


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damaged_files_never_crash(file_format: str) -> None:
    """Files with bytes changed, cut off or added are read, or refused as unreadable or too large; nothing else."""
    good = encode(noise(16, 16), file_format)

    @given(
        changes=st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=8),
        end=st.integers(0, len(good)),
        tail=st.binary(max_size=16),
    )
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    def check(changes: list[tuple[int, int]], end: int, tail: bytes) -> None:
        data = bytearray(good)
        for position, value in changes:
            data[position] = value
        try:
            image = read_image(bytes(data[:end] + tail), SIZE, MAX_PIXELS).image
        except (UnreadableImageError, ImageTooLargeError):
            return
        assert image.shape == SIZE

    check()


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    """Arbitrary bytes are refused as unreadable."""
    with pytest.raises(UnreadableImageError):
        read_image(data, SIZE, MAX_PIXELS)


def test_unusual_files_give_the_same_input_as_the_plain_photo() -> None:
    """Depth, colour space, transparency, frames and orientation are undone, to within rounding or JPEG's errors."""
    plain = read_image(fault("photo.png"), SIZE, MAX_PIXELS).image.astype(int)
    for name in ("grey-16-bit.png", "animated.gif"):
        np.testing.assert_array_equal(
            read_image(fault(name), SIZE, MAX_PIXELS).image, plain, err_msg=name
        )
    for name in ("palette-transparent.png", "cmyk.jpg", "exif-rotated.jpg"):
        np.testing.assert_allclose(
            read_image(fault(name), SIZE, MAX_PIXELS).image, plain, atol=8, err_msg=name
        )
        assert abs(read_image(fault(name), SIZE, MAX_PIXELS).image - plain).mean() < 0.5


@pytest.mark.parametrize(("height", "width"), [(600, 800), (1600, 900), (3000, 400)])
def test_large_jpeg_gives_the_same_input_as_its_pixels(height: int, width: int) -> None:
    """A large JPEG, decoded at a reduced scale, comes out like the same pixels in a format that is not: on average less
    than two grey levels away, and nowhere more than a fifth of the range.
    """
    boot = (
        Image.open(BytesIO(fault("photo.png")))
        .convert("RGB")
        .resize((width, height), Image.Resampling.BICUBIC)
    )
    jpeg = encode(boot, "JPEG", quality=95)
    whole = encode(Image.open(BytesIO(jpeg)), "PNG")
    reduced, full = (read_image(data, SIZE, 10_000_000) for data in (jpeg, whole))
    np.testing.assert_allclose(reduced.image.astype(int), full.image, atol=51)
    assert abs(reduced.image.astype(int) - full.image).mean() < 2
    assert reduced.source_pixels == full.source_pixels == height * width


@pytest.mark.parametrize(
    ("ground", "item"), [(0, 220), (40, 220), (255, 30), (255, 200), (130, 30), (60, 0)]
)
def test_item_comes_out_bright_on_black(ground: int, item: int) -> None:
    """An item is negated unless it is lighter than a dark ground; it fills the input, and the ground is black."""
    photo = read_image(encode(disc(item, ground)), SIZE, MAX_PIXELS)
    assert photo.negated == (ground > 40)
    assert photo.image[14, 14] == (255 - item if photo.negated else item)
    assert photo.image[0, 0] == photo.image[-1, -1] == 0
    assert photo.image[14].min() > photo.image[14, 14] / 8
    assert photo.image[:, 14].min() > photo.image[14, 14] / 8


def disc(item: int, ground: int, side: int = 100) -> np.ndarray:
    """Draw a grey disc, uint8 ``[side, side]``, of half the width, away from the middle."""
    rows, columns = np.indices((side, side)) / side
    return np.where(np.hypot(rows - 0.4, columns - 0.55) < 0.25, item, ground).astype(np.uint8)


@pytest.mark.parametrize("ground", ["#ffffff", "#f4f0e8", "#d8d8d8", "#60a0e0"])
def test_photo_shows_the_item_that_it_was_made_of(ground: str) -> None:
    """Images of the data set, enlarged, negated, set on an even ground and saved as JPEG, come back: on average within
    25 grey levels, turned or not, where the nearest other image is twice as far.
    """
    items = [np.asarray(Image.open(path)) for path in ITEMS]
    seen = [
        read_image(encode(photograph(item, ground), "JPEG"), SIZE, MAX_PIXELS) for item in items
    ]
    assert all(photo.negated for photo in seen)
    apart = np.array(
        [
            [
                min(
                    abs(photo.image.astype(int) - turned).mean() for turned in (item, item[:, ::-1])
                )
                for item in items
            ]
            for photo in seen
        ]
    )
    own = apart.diagonal()
    assert np.median(own) < 25
    assert (apart.argmin(axis=1) == np.arange(len(items))).mean() >= 0.9


@pytest.mark.parametrize("ground", ["#ffffff", "#60a0e0"])
def test_mirrored_photo_is_seen_the_same(ground: str) -> None:
    """Nine of ten photos and their mirror images are seen alike, to eight grey levels on average, one of the two being
    turned; a boot points to the left, as those of the data set do.
    """
    photos = [photograph(np.asarray(Image.open(path)), ground) for path in ITEMS]
    seen = [read_image(encode(photo), SIZE, MAX_PIXELS) for photo in photos]
    mirrored = [read_image(encode(ImageOps.mirror(photo)), SIZE, MAX_PIXELS) for photo in photos]
    apart = [
        abs(one.image.astype(int) - other.image).mean()
        for one, other in zip(seen, mirrored, strict=True)
    ]
    assert np.mean(np.array(apart) < 8) >= 0.9
    assert (
        np.mean([one.mirrored != other.mirrored for one, other in zip(seen, mirrored, strict=True)])
        >= 0.8
    )
    boot = Image.open(BytesIO(fault("photo.png")))
    assert [
        read_image(encode(image), SIZE, MAX_PIXELS).mirrored
        for image in (boot, ImageOps.mirror(boot))
    ] == [
        False,
        True,
    ]


@given(
    number=st.integers(0, 29),
    ground=st.sampled_from(["#ffffff", "#f4f0e8"]),
    scale=st.floats(0.5, 3),
    quality=st.integers(50, 95),
    border_pixels=st.integers(0, 60),
)
@settings(max_examples=60, deadline=None)
def test_same_photo_is_seen_alike(
    number: int, ground: str, scale: float, quality: int, border_pixels: int
) -> None:
    """Scaled, recompressed and with more ground around, a photo is seen at most an eighth of the range away on
    average.
    """
    photo = photograph(np.asarray(Image.open(ITEMS[number])), ground)
    assert distance(photo, ground, scale, quality, border_pixels) < 32


def test_most_photos_are_seen_the_same() -> None:
    """Of photos scaled, recompressed and with more ground around, half are seen within five grey levels on average."""
    photos = [photograph(np.asarray(Image.open(path)), "#ffffff") for path in ITEMS]
    assert np.median([distance(photo, "#ffffff", 0.7, 75, 20) for photo in photos]) < 5


def distance(
    photo: Image.Image, ground: str, scale: float, quality: int, border_pixels: int
) -> float:
    """Return how far apart a photo and its changed copy are seen, in grey levels on average."""
    size = round(photo.width * scale), round(photo.height * scale)
    other = ImageOps.expand(photo.resize(size, Image.Resampling.BICUBIC), border_pixels, ground)
    first, second = (
        read_image(data, SIZE, 10_000_000).image.astype(int)
        for data in (encode(photo), encode(other, "JPEG", quality=quality))
    )
    return float(abs(first - second).mean())


@pytest.mark.parametrize("frame", ["white", "black", "#c03020"])
def test_frame_is_no_ground(frame: str) -> None:
    """A frame of another colour around a photo leaves the item what it is: half are seen within eight grey levels."""
    apart = []
    for path in ITEMS:
        photo = photograph(np.asarray(Image.open(path)), "#a0b0a0")
        plain, framed = (
            read_image(encode(image), SIZE, MAX_PIXELS).image.astype(int)
            for image in (photo, ImageOps.expand(photo, 20, frame))
        )
        apart.append(abs(plain - framed).mean())
    assert np.median(apart) < 8


def photograph(item: np.ndarray, ground: str) -> Image.Image:
    """Make a photo of an image of the data set: enlarged tenfold and negated, on ``ground``."""
    side = 10 * item.shape[0]
    grey = Image.fromarray(255 - item).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
    opacity = Image.fromarray((item > 8).astype(np.uint8) * 255).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    photo = Image.new("RGB", (side + 100, side + 60), ground)
    photo.paste(grey, (50, 30), opacity)
    return photo


@pytest.mark.parametrize(("height", "width"), [(200, 50), (50, 200), (1, 1000), (1000, 1)])
def test_proportions_are_kept(height: int, width: int) -> None:
    """A bright picture is centred in its own proportions; what it does not fill is background."""
    photo = np.zeros((height, width), np.uint8)
    photo[height // 4 : height - height // 4, width // 4 : width - width // 4] = 255
    filled = read_image(encode(photo), SIZE, MAX_PIXELS).image > 64
    rows, columns = filled.any(axis=1).sum(), filled.any(axis=0).sum()
    if height == width:
        assert rows == columns
    else:
        assert (rows > columns) == (height > width)


def test_pixels_are_counted_before_decoding() -> None:
    """The limit is exact, and holds for what the header declares, even if no pixel follows."""
    assert read_image(encode(noise(100, 100)), SIZE, 10_000).image.shape == SIZE
    with pytest.raises(ImageTooLargeError, match=r"100 x 101.*at most 10000"):
        read_image(encode(noise(101, 100)), SIZE, 10_000)
    header_only = encode(noise(101, 100))[:50]
    with pytest.raises(ImageTooLargeError):
        read_image(header_only, SIZE, 10_000)
    with pytest.raises(ImageTooLargeError):
        read_image(fault("bomb-30000x30000.png"), SIZE, MAX_PIXELS)


def test_pixels_that_take_more_memory_count_for_more() -> None:
    """Of a TIFF and a WebP fewer pixels are allowed than of other formats, by what decoding them takes."""
    for file_format, most in (("TIFF", 5000), ("WEBP", 5000)):
        assert (
            read_image(encode(noise(most // 100, 100), file_format), SIZE, 10_000).image.shape
            == SIZE
        )
        with pytest.raises(
            ImageTooLargeError, match=f"{file_format} image has 100 x.*at most {most} "
        ):
            read_image(encode(noise(most // 100 + 1, 100), file_format), SIZE, 10_000)


READ_AND_TELL_PEAK = """
import re, sys
from pathlib import Path
from service.imaging.model_input import read_image

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

data = Path(sys.argv[1]).read_bytes()
before = peak()
read_image(data, (28, 28), 50_000_000)
print(1024 * (peak() - before))
"""


@pytest.mark.parametrize("mode", ["RGBA", "LA", "F", "I", "CMYK"])
def test_large_image_is_never_copied_as_a_whole(tmp_path: Path, mode: str) -> None:
    """Reading takes the 4 bytes of each pixel that the decoded image has, and hardly more, whatever mode it is of."""
    file = tmp_path / "image.tiff"
    side = 3000
    image = Image.fromarray(np.tile(noise(100, 100), (side // 100, side // 100)))
    image.convert(mode).save(file, compression="tiff_adobe_deflate")
    told = subprocess.run(
        [sys.executable, "-c", READ_AND_TELL_PEAK, str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) < 6 * side * side


def test_large_image_is_the_same_in_every_mode() -> None:
    """A large grey image is read alike whether it is stored as grey, with a palette, in colour, opaque or deep."""
    rows, columns = np.mgrid[:1500, :1100]
    ellipse = ((rows - 700) / 500) ** 2 + ((columns - 500) / 300) ** 2
    grey = Image.fromarray(np.clip(255 * (1.5 - ellipse), 0, 255).astype(np.uint8))
    expected = read_image(encode(grey), SIZE, 2_000_000).image
    assert expected.max() > 0
    deep = np.asarray(grey)
    for image in (
        *(grey.convert(mode) for mode in ("P", "RGB", "RGBA", "LA")),
        *(Image.fromarray(deep.astype(kind)) for kind in (np.int32, np.float32)),
        Image.fromarray(deep.astype(np.uint16) * 257),
    ):
        np.testing.assert_array_equal(
            read_image(encode(image, "TIFF"), SIZE, 4_000_000).image, expected, image.mode
        )


def test_scans_are_counted_whatever_a_jpeg_is_called() -> None:
    """A JPEG of too many scans is refused, also as the first of the two pictures of a stereo photo (MPO)."""
    photo, stereo = BytesIO(), BytesIO()
    picture = Image.fromarray(noise(64, 64))
    picture.save(photo, "JPEG")
    picture.save(stereo, "MPO", save_all=True, append_images=[picture])
    for jpeg in (photo.getvalue(), stereo.getvalue()):
        assert read_image(jpeg, SIZE, MAX_PIXELS).image.shape == SIZE
        start = jpeg.index(b"\xff\xda")
        scan = jpeg[start : jpeg.index(b"\xff\xd9")]
        with pytest.raises(UnreadableImageError, match="scans"):
            read_image(jpeg[:start] + scan * 101 + jpeg[start:], SIZE, MAX_PIXELS)


def test_bytes_after_a_jpeg_are_no_scans() -> None:
    """A photo that a film follows, as some phones have it, is read, whatever markers come up in the film's bytes."""
    photo = encode(noise(64, 64), "JPEG")
    film = np.random.default_rng(0).bytes(100_000).replace(b"\xff", b"\xff\xda")
    assert film.count(b"\xff\xda") > MAX_JPEG_SCANS
    np.testing.assert_array_equal(
        read_image(photo + film, SIZE, MAX_PIXELS).image, read_image(photo, SIZE, MAX_PIXELS).image
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photo_may_have_odd_exif(orientation: int) -> None:
    """A photo is upright by its orientation, whatever its EXIF says that no writer would: a resolution in words."""
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
    np.testing.assert_array_equal(read_image(image, (size[0], size[1]), MAX_PIXELS).image, expected)


def test_exif_that_no_camera_writes_is_passed_over() -> None:
    """An image is turned by its EXIF up to a size; past it the image is read as it is stored."""
    pixels = noise(28, 20)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    turned = read_image(encode(pixels, exif=exif), (20, 28), MAX_PIXELS).image
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
    exif[Base.ImageDescription] = "x" * 70_000
    np.testing.assert_array_equal(
        read_image(encode(pixels, exif=exif), (28, 20), MAX_PIXELS).image, pixels
    )


def test_images_that_cost_more_than_they_are_worth_are_refused() -> None:
    """Very long edges, and images in very many scans or strips, are refused by their header."""
    with pytest.raises(ImageTooLargeError, match="32768 a side"):
        read_image(encode(Image.new("L", (40_000, 2))), SIZE, 10_000_000)
    progressive = encode(noise(64, 64), "JPEG", progressive=True)
    start = progressive.index(b"\xff\xda")
    end = progressive.index(
        b"\xff", start + 2 + int.from_bytes(progressive[start + 2 : start + 4], "big")
    )
    many_scans = progressive[:start] + progressive[start:end] * 2000 + progressive[start:]
    with pytest.raises(UnreadableImageError, match="scans"):
        read_image(many_scans, SIZE, MAX_PIXELS)
    many_strips = encode(Image.new("L", (1, 20_000)), "TIFF", tiffinfo={ROWS_PER_STRIP: 1})
    with pytest.raises(UnreadableImageError, match="strips"):
        read_image(many_strips, SIZE, MAX_PIXELS)


def test_invisible_colours_do_not_show() -> None:
    """A large transparent picture is flattened over white by opacity, whatever colour lies below what is invisible."""
    visible = np.zeros((400, 400, 4), np.uint8)
    visible[100:300, 100:300] = (200, 200, 200, 255)
    hidden = visible.copy()
    hidden[visible[..., 3] == 0] = (0, 255, 0, 0)
    image = read_image(encode(Image.fromarray(visible)), SIZE, MAX_PIXELS).image
    np.testing.assert_array_equal(
        read_image(encode(Image.fromarray(hidden)), SIZE, MAX_PIXELS).image, image
    )
    assert image[14, 14] == 55


def test_deep_images_are_scaled_and_not_clipped() -> None:
    """32-bit integers and floats are stretched over 8 bits; what is not a number counts as zero."""
    ramp = np.linspace(0, 1, 784).reshape(SIZE)
    for deep in (ramp.astype(np.float32), (ramp * 1e9).astype(np.int32)):
        image = read_image(encode(Image.fromarray(deep), "TIFF"), SIZE, MAX_PIXELS).image
        np.testing.assert_allclose(image, ramp * 255, atol=1)
    broken = np.full(SIZE, np.nan, np.float32)
    assert read_image(encode(Image.fromarray(broken), "TIFF"), SIZE, MAX_PIXELS).image.max() == 0
