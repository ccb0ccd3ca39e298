"""Photos made from images of the data set, so that the right answer is known."""

from __future__ import annotations

from io import BytesIO
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.data.samples import Images

Background = Literal["white", "white with a shadow", "grey", "coloured"]
BACKGROUNDS: tuple[Background, ...] = get_args(Background)

MAX_EMPTY_LEVEL = 6  # pixels of the data set up to this level are background
SHADOW_STRENGTH = 0.35


def make_photos(images: Images, background: Background, seed: int) -> list[bytes]:
    """Make a JPEG photo of each image ``[N, H, W]``: enlarged, negated, on a ``background``.

    The enlarged image has a side of 300 to 699 pixels. Each margin is 2 % to 30 % of the side.
    """
    generator = np.random.default_rng(seed)
    return [_make_photo(image, background, generator) for image in images]


def _make_photo(
    image: NDArray[np.uint8], background: Background, generator: np.random.Generator
) -> bytes:
    side = int(generator.integers(300, 700))
    top, bottom, left, right = (generator.uniform(0.02, 0.3, 4) * side).astype(int).tolist()
    size = (side + left + right, side + top + bottom)
    photo = Image.new("RGB", size, _draw_colour(background, generator))
    item = _enlarge(255 - image, side).convert("RGB")
    outline = _enlarge((image > MAX_EMPTY_LEVEL).astype(np.uint8) * 255, side)
    if "shadow" in background:
        blurred = outline.filter(ImageFilter.GaussianBlur(side / 25))
        shadow = blurred.point(lambda value: value * SHADOW_STRENGTH)
        photo.paste("black", (left + side // 30, top + side // 25), shadow)
    photo.paste(item, (left, top), outline.filter(ImageFilter.GaussianBlur(side / 90)))
    buffer = BytesIO()
    photo.save(buffer, "JPEG", quality=int(generator.integers(60, 95)))
    return buffer.getvalue()


def _enlarge(image: NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)


def _draw_colour(background: Background, generator: np.random.Generator) -> tuple[int, int, int]:
    if "white" in background:
        return 255, 255, 255
    if background == "grey":
        level = int(generator.integers(150, 235))
        return level, level, level
    red, green, blue = generator.integers(40, 245, 3).tolist()
    return red, green, blue
