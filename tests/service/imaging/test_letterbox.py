"""The rule ``letterbox``: what a photo model sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.imaging import InputSpec, read_image
from service.imaging.letterbox import BAR_GREY, fit_into_box
from tests.service.images import encode

SIZE = (96, 128)
PHOTO = InputSpec("letterbox", SIZE)
MAX_PIXELS = 10_000_000
RED = (200, 20, 20)

sides = st.integers(1, 300)
sizes = st.tuples(st.integers(1, 64), st.integers(1, 64))


@given(width=sides, height=sides, size=sizes)
@settings(max_examples=200, deadline=None)
def test_photo_is_as_large_as_fits_and_keeps_its_proportions(
    width: int, height: int, size: tuple[int, int]
) -> None:
    """One side is the input's, the other is in proportion to a pixel, the bars are equal and 127.

    The photo is never larger than the input. Its colour is unchanged.
    """
    boxed = fit_into_box(Image.new("RGB", (width, height), RED), size)
    assert boxed.shape == (*size, 3)
    assert boxed.dtype == np.uint8
    is_photo = (boxed == RED).all(axis=2)
    assert (boxed[~is_photo] == BAR_GREY).all()
    rows, columns = np.flatnonzero(is_photo.any(axis=1)), np.flatnonzero(is_photo.any(axis=0))
    assert is_photo[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    scale = min(size[0] / height, size[1] / width)
    assert len(rows) == pytest.approx(max(1, height * scale), abs=0.5)
    assert len(columns) == pytest.approx(max(1, width * scale), abs=0.5)
    assert len(rows) == size[0] or len(columns) == size[1]
    for found, side in ((rows, size[0]), (columns, size[1])):
        assert side - 1 - found[-1] - found[0] in (0, 1)


@pytest.mark.parametrize("orientation", [*range(1, 9)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_photo_is_upright(file_format: str, orientation: int) -> None:
    """A photo with EXIF's orientation looks like the upright photo that a viewer shows."""
    upright = Image.new("RGB", (300, 400), "white")
    upright.paste(RED, (0, 0, 150, 200))
    turns = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}
    stored = upright
    for turn in turns.get(orientation, []):
        stored = stored.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = read_image(encode(stored, file_format, exif=exif), PHOTO, MAX_PIXELS).image
    expected = fit_into_box(upright, SIZE)
    assert abs(seen.astype(int) - expected).mean() < 1


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    """Grey, palette, CMYK, 16-bit and transparent images become RGB of the same colours."""
    grey = Image.new("L", (100, 100), 255)
    if mode == "I;16":
        image = Image.fromarray(np.full((100, 100), 65_535, np.uint16))
    else:
        image = grey.convert("RGB").convert(mode)
    file_format = "JPEG" if mode == "CMYK" else "PNG"
    seen = read_image(encode(image, file_format), PHOTO, MAX_PIXELS).image
    assert (seen[:, 20:108] >= 254).all()
    assert (seen[:, :16] == BAR_GREY).all()


@pytest.mark.parametrize(("width", "height"), [(800, 600), (600, 800), (3000, 2000), (700, 700)])
def test_large_jpeg_looks_like_its_pixels(width: int, height: int) -> None:
    """A JPEG that is decoded at a reduced scale looks like its own pixels, averaged to the size.

    It is less than two levels away on average: the reduced scale blurs little.
    """
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (12, 16, 3), np.uint8)
    photo = Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)
    jpeg = encode(photo, "JPEG", quality=95)
    seen = read_image(jpeg, PHOTO, MAX_PIXELS).image.astype(int)
    expected = fit_into_box(photo, SIZE)
    assert seen.shape == expected.shape
    assert abs(seen - expected).mean() < 2


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 10), (10, 20_000), (1, 1), (1, 5000), (28, 28)]
)
def test_odd_sizes_are_seen(width: int, height: int) -> None:
    """Panoramas, strips and single pixels become inputs with bars; a black image stays black."""
    seen = read_image(encode(Image.new("RGB", (width, height))), PHOTO, MAX_PIXELS).image
    assert seen.shape == (*SIZE, 3)
    assert set(np.unique(seen)) == {0, BAR_GREY}
