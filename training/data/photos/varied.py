"""Views: the pictures that a photo network sees in training, varied at random."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from training.data.photos.found import FoundItem
from training.data.photos.worn import Box, WornItem, WornPhoto

Generator = np.random.Generator


def vary(picture: Image.Image, generator: Generator) -> Image.Image:
    """Vary an RGB picture as cameras and people do: crop, mirror, turn, light, blur, JPEG."""
    varied = _crop(picture, generator)
    if generator.random() < 0.5:
        varied = ImageOps.mirror(varied)
    if generator.random() < 0.5:
        varied = _turn(varied, generator)
    varied = _light(varied, generator)
    if generator.random() < 0.2:
        varied = varied.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 1.5)))
    return _compress(varied, generator) if generator.random() < 0.5 else varied


def crop_item(item: WornItem | FoundItem, generator: Generator) -> Image.Image:
    """Crop a worn item with a little of its surroundings, a garment sometimes with much."""
    photo = Image.open(item.file).convert("RGB")
    # Much around a hat or a scarf is a garment, which must not be learnt as none of the classes.
    widest = generator.choice((0.1, 0.3, 0.9), p=(0.5, 0.35, 0.15)) if item.classes else 0.05
    return photo.crop(_widen(item.box, generator.uniform(-0.04, widest, 4), photo.size))


def paste_item(item: WornItem, background: Image.Image | None, generator: Generator) -> Image.Image:
    """Cut a worn item out and paste it on a part of ``background``, or on a plain colour."""
    photo, outline = item.open()
    box = _widen(item.box, generator.uniform(0, 0.3, 4), photo.size)
    photo, outline = photo.crop(box), outline.crop(box)
    if background is not None:
        return Image.composite(photo, background.resize(photo.size), outline)
    colour = (255, 255, 255) if generator.random() < 0.6 else _draw_colour(generator)
    return Image.composite(photo, Image.new("RGB", photo.size, colour), outline)


def crop_bare(photo: WornPhoto, generator: Generator) -> Image.Image | None:
    """Crop a part of a photo without any garment; None if ten tries find none."""
    bare = photo.find_bare()
    height, width = bare.shape
    for _ in range(10):
        side = int(min(height, width) * generator.uniform(0.15, 0.5))
        left, top = (int(generator.integers(0, free - side)) for free in (width, height))
        if bare[top : top + side, left : left + side].mean() > 0.98:
            return Image.open(photo.file).convert("RGB").crop((left, top, left + side, top + side))
    return None


def _widen(box: Box, margins: NDArray[np.float64], size: tuple[int, int]) -> Box:
    """Widen a box by ``margins``, as shares of its longer side, within a photo of ``size``.

    With negative margins it becomes narrower, but a pixel remains.
    """
    left, top, right, bottom = box
    grow = (margins * max(right - left, bottom - top)).astype(int).tolist()
    left, top = max(0, left - grow[0]), max(0, top - grow[1])
    right, bottom = min(size[0], right + grow[2]), min(size[1], bottom + grow[3])
    return left, top, max(left + 1, right), max(top + 1, bottom)


def _crop(picture: Image.Image, generator: Generator) -> Image.Image:
    """Cut up to a quarter off each side's length, or add up to a fifth of plain border."""
    if generator.random() < 0.2:
        border = int(generator.uniform(0, 0.2) * max(picture.size))
        return ImageOps.expand(picture, border, picture.getpixel((0, 0)))  # type: ignore[arg-type]
    width, height = picture.size
    cut = generator.uniform(0, 0.25 if generator.random() < 0.2 else 0.125, 4)
    left, top, right, bottom = cut * (width, height, width, height)
    return picture.crop((int(left), int(top), width - int(right), height - int(bottom)))


def _turn(picture: Image.Image, generator: Generator) -> Image.Image:
    """Turn by up to 20 degrees and shift the corners by up to a tenth; the edges are filled."""
    width, height = picture.size
    angle = np.deg2rad(generator.uniform(-20, 20) if generator.random() < 0.7 else 0)
    corners = np.array([(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)]) * (width, height)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    moved = corners @ turn + generator.uniform(-0.06, 0.06, (4, 2)) * (width, height)
    quad = np.add(moved, (width / 2, height / 2)).ravel().tolist()
    fill = picture.getpixel((0, 0))
    return picture.transform(
        picture.size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR, fillcolor=fill
    )


def _light(picture: Image.Image, generator: Generator) -> Image.Image:
    """Change brightness, contrast, saturation and the colour of the light; sometimes no colour."""
    if generator.random() < 0.1:
        picture = picture.convert("L").convert("RGB")
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(generator.uniform(0.6, 1.4))
    gains = generator.uniform(0.85, 1.15, 3)
    return picture.point([min(255, round(level * gain)) for gain in gains for level in range(256)])


def _compress(picture: Image.Image, generator: Generator) -> Image.Image:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=int(generator.integers(30, 95)))
    return Image.open(buffer).convert("RGB")


def _draw_colour(generator: Generator) -> tuple[int, int, int]:
    red, green, blue = generator.integers(0, 256, 3).tolist()
    return red, green, blue
