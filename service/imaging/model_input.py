"""From the bytes of an image to the model's input, by the rule that the model's manifest names.

Everything geometric is in this folder, for training and for serving; everything arithmetic is in
the model. Knows nothing about HTTP or the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging import item_on_black, letterbox
from service.imaging.files import Picture, read_picture
from service.imaging.heat_map import draw_heat_map
from service.imaging.item_on_black import ITEM_ON_BLACK, PlacedItem, is_grey, place_item
from service.imaging.letterbox import LETTERBOX, fit_into_box

SUPERSEDED = {"fit-pad": ITEM_ON_BLACK}
"""Rules of older models, and the rules that replace them (docs/decisions/0004-find-the-item.md)."""
PREPROCESSINGS = (ITEM_ON_BLACK, LETTERBOX, *SUPERSEDED)
"""The rules that ``read_image`` knows."""


@dataclass(frozen=True)
class InputSpec:
    """What a model's input is: the name of a rule of ``PREPROCESSINGS``, and (height, width)."""

    preprocessing: str
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width) of a grey input, or (height, width, 3) of an RGB input."""
        return self.size if self.is_grey else (*self.size, 3)

    @property
    def is_grey(self) -> bool:
        """Whether the input is grey; else it is RGB."""
        return self.preprocessing != LETTERBOX


@dataclass(frozen=True)
class ModelInput:
    """A model's input: ``image`` is uint8 ``[height, width]``, or ``[height, width, 3]`` in RGB.

    ``spec`` says which input it is. ``source_pixels`` counts the pixels of the upload. ``placed``
    is the item that the rule ``item-on-black`` found, and None if the image was taken as it is or
    the rule is another one.
    """

    image: NDArray[np.uint8]
    spec: InputSpec
    source_pixels: int
    placed: PlacedItem | None = None

    def to_png(self) -> bytes:
        """Encode the image that the model sees."""
        return _encode(Image.fromarray(self.image))

    def to_heat_map_png(self, activation: NDArray[np.float32]) -> bytes:
        """Draw an activation map over the RGB image that the model sees; see ``draw_heat_map``."""
        return _encode(draw_heat_map(self.image, activation))


def read_image(
    data: bytes, spec: InputSpec, max_pixels: int, exact: Sequence[InputSpec] = ()
) -> ModelInput:
    """Turn the bytes of an image into the input that ``spec`` describes.

    A grey, opaque image that has exactly the size of one of the grey inputs ``exact`` becomes that
    input instead.

    Raises:
        ImageTooLargeError: The header declares more than ``max_pixels``. Nothing was decoded.
        UnreadableImageError: The bytes are not an image of an accepted format, or are damaged.
    """
    scale = item_on_black.REDUCED_SCALE if spec.is_grey else letterbox.REDUCED_SCALE
    sides = [round(scale * max(spec.size)), *(max(each.size) for each in exact)]
    picture = read_picture(data, max_pixels, max(sides))
    spec = next((each for each in exact if _is_exactly(picture, each.size)), spec)
    if spec.is_grey:
        image, placed = place_item(picture.image, spec.size, is_cut_out=picture.is_cut_out)
        return ModelInput(image, spec, picture.source_pixels, placed)
    return ModelInput(fit_into_box(picture.image, spec.size), spec, picture.source_pixels)


def _is_exactly(picture: Picture, size: tuple[int, int]) -> bool:
    """Tell whether the picture is grey, opaque, and had ``size`` (height, width) in its file."""
    if picture.is_cut_out:
        return False
    image = picture.image
    was_reduced = picture.source_pixels != math.prod(size)
    return (image.height, image.width) == size and not was_reduced and is_grey(image)


def _encode(image: Image.Image) -> bytes:
    buffer = BytesIO()
    # Of a photo of 160 x 160 pixels, level 6 takes three times as long for 7 % fewer bytes.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
