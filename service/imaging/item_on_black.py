"""The rule ``item-on-black``: a photo becomes an input like the images of Fashion-MNIST.

Only models with a grey input need it. ``service/imaging/item.py`` finds the item. Knows nothing
about HTTP or the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter, ImageOps

from service.imaging.item import Item, find_item

ITEM_ON_BLACK = "item-on-black"
REDUCED_SCALE = 4  # large images are first averaged down to at least this times the model's size
ITEM_SIDE_PIXELS = 96  # of the longer side, in the search for the item
DARK_BACKGROUND = 40  # of 100 in Lab's lightness: on a lighter one the data set is always negated


@dataclass(frozen=True)
class PlacedItem:
    """The ``item`` that was found in a photo, and whether it was ``negated`` and ``mirrored``."""

    item: Item
    negated: bool
    mirrored: bool

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) as shares of the upright photo's width and height."""
        height, width = self.item.mask.shape
        left, top, right, bottom = self.item.box
        return left / width, top / height, right / width, bottom / height

    @property
    def background_hex(self) -> str:
        """The colour of the background as CSS writes it: #rrggbb in sRGB."""
        return _to_hex(self.item.background)


def place_item(
    image: Image.Image, size: tuple[int, int], *, is_cut_out: bool = False
) -> tuple[NDArray[np.uint8], PlacedItem | None]:
    """Turn an upright ``image`` into uint8 ``[height, width]`` of ``size`` (height, width).

    A grey image of that size is taken as it is, pixel for pixel; its item is None. A cut-out is not
    taken as it is: its background was transparent. In any other image the item is found and treated
    like the photos of the data set (Xiao et al. 2017, section 2, without the sharpening): it is cut
    out, scaled until it fills ``size``, centred on black, made grey and negated. An item that is
    lighter than a dark background is not negated. An item that is heavier on its left is mirrored:
    the data set's shoes all point to the left, so a photo and its mirror image get the same answer.
    """
    if (image.height, image.width) == size and is_grey(image) and not is_cut_out:
        return np.asarray(image if image.mode == "L" else image.convert("L")), None
    item = find_item(_to_lab(_scale(image, ITEM_SIDE_PIXELS)))
    negated = item.is_darker_than_background or item.background[0] > DARK_BACKGROUND
    grey = image.convert("L")
    cut = _cut_out(ImageOps.invert(grey) if negated else grey, item, size)
    mirrored = _is_heavier_on_its_left(cut)
    centred = _centre(cut[:, ::-1] if mirrored else cut, size)
    return centred, PlacedItem(item, negated, mirrored)


def is_grey(image: Image.Image) -> bool:
    """Tell whether the colour channels of an L or RGB image are equal."""
    if image.mode == "L":
        return True
    red, green, blue = np.moveaxis(np.asarray(image), 2, 0)
    return bool((red == green).all() and (green == blue).all())


def _scale(image: Image.Image, side_pixels: int) -> Image.Image:
    """Scale the longer edge to ``side_pixels``."""
    scale = side_pixels / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return image.resize(size, smooth, reducing_gap=2.0)


def _to_lab(image: Image.Image) -> NDArray[np.float32]:
    """Convert to Lab ``[height, width, 3]``: lightness 0 to 100, then two colour axes -128 to 127.

    The axes go from green to red and from blue to yellow. The image is blurred a little before:
    items are larger than a pixel, and noise is not.
    """
    blurred = image.convert("RGB").filter(ImageFilter.BoxBlur(1))
    encoded = np.asarray(ImageCms.applyTransform(blurred, _lab_transform()))
    # Each plane is contiguous, because most steps work on one plane.
    planes = np.empty((3, *encoded.shape[:2]), np.float32)
    np.multiply(encoded[..., 0], 100 / 255, out=planes[0])
    planes[1:] = encoded[..., 1:].view(np.int8).transpose(2, 0, 1)
    return planes.transpose(1, 2, 0)


@cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    # Several threads share the transform: Little CMS allows it without its cache of one pixel.
    return ImageCms.buildTransform(srgb, lab, "RGB", "LAB", flags=ImageCms.Flags.NOCACHE)


def _to_hex(lab: NDArray[np.float32]) -> str:
    lightness, a, b = (round(float(value)) for value in lab)
    pixel = Image.frombytes("LAB", (1, 1), bytes((lightness * 255 // 100, a % 256, b % 256)))
    return f"#{bytes(np.asarray(ImageCms.applyTransform(pixel, _srgb_transform()))).hex()}"


@cache
def _srgb_transform() -> ImageCms.ImageCmsTransform:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.NOCACHE)


def _cut_out(grey: Image.Image, item: Item, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut the item out of ``grey`` on black, as large as fits into ``size``."""
    height, width = size
    left, top, right, bottom = item.box
    rows, columns = item.mask.shape
    across, down = grey.width / columns, grey.height / rows  # pixels of the photo a pixel of mask
    item_width, item_height = (right - left) * across, (bottom - top) * down
    scale = min(width / item_width, height / item_height)
    inner = max(1, round(item_width * scale)), max(1, round(item_height * scale))
    photo_box = left * across, top * down, right * across, bottom * down
    values = np.asarray(grey.resize(inner, Image.Resampling.LANCZOS, photo_box, reducing_gap=2.0))
    smooth = Image.Resampling.BOX if right - left > inner[0] else Image.Resampling.BILINEAR
    opacity = np.asarray(Image.fromarray(item.opacity).resize(inner, smooth, item.box))
    return np.asarray(np.rint(values * opacity).astype(np.uint8))


def _is_heavier_on_its_left(cut: NDArray[np.uint8]) -> bool:
    columns = cut.sum(axis=0, dtype=np.int64)
    return bool(columns @ (2 * np.arange(len(columns)) - len(columns) + 1) < 0)


def _centre(cut: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Place ``cut`` in the middle of a black image of ``size``."""
    (height, width), (rows, columns) = size, cut.shape
    centred = np.zeros(size, np.uint8)
    top, left = (height - rows) // 2, (width - columns) // 2
    centred[top : top + rows, left : left + columns] = cut
    return centred
