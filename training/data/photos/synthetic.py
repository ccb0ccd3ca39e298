"""Own photos made of images of the data set: what people would upload, of items whose answer is known."""

from __future__ import annotations

from io import BytesIO
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.data.samples import Images

Ground = Literal["white", "white with a shadow", "grey", "coloured"]
GROUNDS: tuple[Ground, ...] = get_args(Ground)

EMPTY = 6  # darker pixels of the data set are ground
SHADOW_STRENGTH = 0.35


def make_uploads(images: Images, ground: Ground, seed: int) -> list[bytes]:
    """Make a JPEG photo of each image ``[N, H, W]`` of the data set: enlarged, negated, on ``ground``.

    The item is 300 to 700 pixels large, with free ground of 2 % to 30 % of that on each side.
    """
    generator = np.random.default_rng(seed)
    return [_make_upload(image, ground, generator) for image in images]


def _make_upload(image: NDArray[np.uint8], ground: Ground, generator: np.random.Generator) -> bytes:
    side = int(generator.integers(300, 700))
    top, bottom, left, right = (generator.uniform(0.02, 0.3, 4) * side).astype(int).tolist()
    photo = Image.new(
        "RGB", (side + left + right, side + top + bottom), _draw_colour(ground, generator)
    )
    enlarged = (
        Image.fromarray(255 - image).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
    )
    outline = Image.fromarray((image > EMPTY).astype(np.uint8) * 255).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    if "shadow" in ground:
        shadow = outline.filter(ImageFilter.GaussianBlur(side / 25)).point(
            lambda value: value * SHADOW_STRENGTH
        )
        photo.paste("black", (left + side // 30, top + side // 25), shadow)
    photo.paste(enlarged, (left, top), outline.filter(ImageFilter.GaussianBlur(side / 90)))
    buffer = BytesIO()
    photo.save(buffer, "JPEG", quality=int(generator.integers(60, 95)))
    return buffer.getvalue()


def _draw_colour(ground: Ground, generator: np.random.Generator) -> tuple[int, int, int]:
    if "white" in ground:
        return 255, 255, 255
    if ground == "grey":
        level = int(generator.integers(150, 235))
        return level, level, level
    red, green, blue = generator.integers(40, 245, 3).tolist()
    return red, green, blue
