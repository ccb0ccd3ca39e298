"""From image bytes to the model's input."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from service.imaging import read_image
from tests.service.images import encode, fault

SIZE = (28, 28)
MAX_PIXELS = 1_000_000
ITEMS = sorted((Path(__file__).parents[2] / "data" / "fashion-mnist-sample").glob("*.png"))


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
