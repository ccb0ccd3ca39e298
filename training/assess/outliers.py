"""Images of no class, to measure whether a model detects them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.photos.views import see_photos
from training.data.samples import Images


def make_outliers(images: Images, photos: Path | None, seed: int) -> dict[str, Images]:
    """Make N outliers of each kind, where N is the number of ``images`` ``[N, H, W]``.

    ``photos`` is a folder of labelled photos. All its photos of no class are one more kind.

    Returns:
        The outliers by the name of their kind.

    Raises:
        DataError: The folder of photos cannot be read.
    """
    generator = np.random.default_rng(seed)
    count, height, width = images.shape
    kinds = {
        "uniform noise": generator.integers(0, 256, images.shape, dtype=np.uint8),
        "rendered digits": render_digits(count, (height, width), generator),
        "inverted images": 255 - images,
    }
    if photos is not None:
        kinds["photos of other things"] = see_photos(photos, (height, width), of_classes=False)
    return kinds


def render_digits(count: int, size: tuple[int, int], generator: np.random.Generator) -> Images:
    """Render white digits on black in Pillow's default font: ``[count, H, W]``.

    Size, position and rotation are random.
    """
    return np.stack([_render_digit(size, generator) for _ in range(count)])


def _render_digit(size: tuple[int, int], generator: np.random.Generator) -> NDArray[np.uint8]:
    height, width = size
    font = ImageFont.load_default(float(generator.uniform(0.6, 1.1)) * height)
    picture = Image.new("L", (width, height))
    centre = np.array((width, height)) / 2
    place = tuple(centre + generator.uniform(-0.1, 0.1, 2) * (width, height))
    ImageDraw.Draw(picture).text(place, str(generator.integers(10)), 255, font, anchor="mm")
    angle = float(generator.uniform(-15, 15))
    return np.asarray(picture.rotate(angle, Image.Resampling.BILINEAR))
