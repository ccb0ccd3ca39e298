"""Pictures that people upload, made from images of the data set, so that the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

GreyImage = NDArray[np.uint8]
Maker = Callable[[GreyImage, np.random.Generator], Image.Image]

MAX_EMPTY_LEVEL = 6  # pixels of the data set up to this level are background
COLOUR_MAPS = ("viridis", "plasma", "inferno", "magma", "cividis", "gray", "binary", "Blues", "jet")
FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
FIGURE_SIZE, FIGURE_BOX = (640, 480), (144, 53, 513, 422)  # Matplotlib's defaults for one image


def make_product_photo(
    image: GreyImage, generator: np.random.Generator, *, on_white: bool = False
) -> Image.Image:
    """Make a photo of the item: enlarged, coloured, textured, often with a shadow.

    The background is usually white or nearly white, and always white with ``on_white``.
    """
    side = int(generator.integers(110, 300))
    grey = Image.fromarray(255 - image).resize((side, side), Image.Resampling.LANCZOS)
    sharp = grey.filter(ImageFilter.UnsharpMask(side / 60, int(generator.integers(50, 200)), 0))
    item = _colour(np.asarray(sharp, np.float32) / 255, generator)
    outline = _find_outline(image, side)
    top, bottom, left, right = (generator.uniform(0, 0.3, 4) * side).astype(int).tolist()
    background = (255, 255, 255) if on_white else _background(generator)
    photo = Image.new("RGB", (side + left + right, side + top + bottom), background)
    if generator.random() < 0.5:
        shadow = outline.filter(ImageFilter.GaussianBlur(side / 25))
        strength = generator.uniform(0.1, 0.5)
        faint = shadow.point([round(strength * level) for level in range(256)])
        photo.paste("black", (left + side // 40, top + side // 25), faint)
    photo.paste(item, (left, top), outline)
    return photo


def enlarge_image(
    image: GreyImage, generator: np.random.Generator, *, sides_pixels: tuple[int, int] = (28, 300)
) -> Image.Image:
    """Enlarge an image of the data set as a viewer does: bright on black, or dark on white.

    The new side lies between the two ``sides_pixels``. Each doubling of the side is equally likely.
    """
    shortest, longest = np.log(sides_pixels)
    side = int(np.exp(generator.uniform(shortest, longest)))
    chosen = FILTERS[int(generator.integers(len(FILTERS)))]
    shown = 255 - image if generator.random() < 0.5 else image
    return Image.fromarray(shown).resize((side, side), chosen).convert("RGB")


def draw_figure(image: GreyImage, generator: np.random.Generator) -> Image.Image:
    """Draw an image of the data set with a colour map, alone or as a figure with axes."""
    name = COLOUR_MAPS[int(generator.integers(len(COLOUR_MAPS)))]
    coloured = matplotlib.colormaps[name](image, bytes=True)[..., :3]
    left, top, right, bottom = FIGURE_BOX
    chosen = FILTERS[int(generator.integers(2))]
    drawn = Image.fromarray(coloured).resize((right - left, bottom - top), chosen)
    if generator.random() < 0.4:
        return drawn
    figure = Image.new("RGB", FIGURE_SIZE, "white")
    figure.paste(drawn, (left, top))
    pen = ImageDraw.Draw(figure)
    pen.rectangle(FIGURE_BOX, outline="black")
    if generator.random() < 0.7:
        _draw_ticks(pen)
    return figure.crop((80, 20, 577, 460)) if generator.random() < 0.5 else figure


MAKERS: tuple[tuple[float, Maker], ...] = (
    (0.5, make_product_photo),
    (0.3, enlarge_image),
    (0.2, draw_figure),
)
"""The kinds of uploads, with their shares."""


def make_upload(image: GreyImage, generator: np.random.Generator) -> Image.Image:
    """Make an upload of a random kind from an image ``[28, 28]`` of the data set."""
    shares = [share for share, _ in MAKERS]
    _, make = MAKERS[int(generator.choice(len(MAKERS), p=shares))]
    return make(image, generator)


def _colour(grey: NDArray[np.floating[Any]], generator: np.random.Generator) -> Image.Image:
    """Tint a grey image ``[H, W]`` in 0..1, and give it a texture."""
    height, width = grey.shape
    tint = generator.uniform(0, 0.6, 3) if generator.random() < 0.7 else np.zeros(3)
    coarse = generator.normal(0, generator.uniform(0, 0.06), (height // 2 + 1, width // 2 + 1))
    texture = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    level = (grey + texture).clip(0, 1)[..., None]
    return Image.fromarray(np.rint(255 * (tint + (1 - tint) * level)).astype(np.uint8))


def _find_outline(image: GreyImage, side: int) -> Image.Image:
    """Return a smooth outline of the item ``[side, side]``: 255 inside, 0 outside."""
    mask = Image.fromarray((image > MAX_EMPTY_LEVEL).astype(np.uint8) * 255)
    smooth = mask.resize((side, side), Image.Resampling.BICUBIC)
    steep = [min(255, max(0, 4 * (level - 96))) for level in range(256)]
    return smooth.filter(ImageFilter.GaussianBlur(side / 100)).point(steep)


def _background(generator: np.random.Generator) -> tuple[int, int, int]:
    kind = generator.random()
    if kind < 0.6:
        level = int(generator.integers(245, 256))
        return level, level, level
    if kind < 0.8:
        level = int(generator.integers(150, 245))
        return level, level, level
    red, green, blue = generator.integers(40, 245, 3).tolist()
    return red, green, blue


def _draw_ticks(pen: ImageDraw.ImageDraw) -> None:
    left, top, right, bottom = FIGURE_BOX
    for value in range(0, 28, 5):
        along = (value + 0.5) / 28
        x, y = left + along * (right - left), top + along * (bottom - top)
        pen.line((x, bottom, x, bottom + 4), "black")
        pen.text((x - 4, bottom + 6), str(value), "black")
        pen.line((left - 4, y, left, y), "black")
        pen.text((left - 20, y - 5), str(value), "black")
