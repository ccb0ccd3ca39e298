"""Own images that are none of the classes, to measure whether a model knows that. Must never know a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.data.photos.views import see_photos
from training.data.samples import Images


def make_outliers(images: Images, photos: Path | None, seed: int) -> dict[str, Images]:
    """Make as many outliers of each kind as there are ``images`` ``[N, H, W]``, by the name of the kind.

    ``photos`` is a folder of photos with a ``labels.csv``; those of other things are read from it.

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
    """Render digits in Pillow's own font, white on black, of random size, place and turn: ``[count, H, W]``."""
    height, width = size
    pictures = []
    for _ in range(count):
        font = ImageFont.load_default(float(generator.uniform(0.6, 1.1)) * height)
        picture = Image.new("L", (width, height))
        place = tuple(
            np.array((width, height)) / 2 + generator.uniform(-0.1, 0.1, 2) * (width, height)
        )
        ImageDraw.Draw(picture).text(place, str(generator.integers(10)), 255, font, anchor="mm")
        pictures.append(
            np.asarray(picture.rotate(float(generator.uniform(-15, 15)), Image.Resampling.BILINEAR))
        )
    return np.stack(pictures)
