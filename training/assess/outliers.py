"""Images of no class, to measure whether a model detects them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.samples import Images


def make_outliers(images: Images, seed: int) -> dict[str, Images]:
    """Make N outliers of each kind, where N is the number of ``images`` ``[N, H, W]``.

    Returns:
        The outliers by the name of their kind.
    """
    generator = np.random.default_rng(seed)
    count, height, width = images.shape
    return {
        "uniform noise": generator.integers(0, 256, images.shape, dtype=np.uint8),
        "rendered digits": render_digits(count, (height, width), generator),
        "inverted images": 255 - images,
    }


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
