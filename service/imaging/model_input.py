"""From the bytes of an image to the model's input, by the rule that the model's manifest names.

Everything geometric is in this folder, for training and for serving; everything arithmetic is in
the model. Knows nothing about HTTP or the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging import item_on_black, letterbox
from service.imaging.files import read_picture
from service.imaging.heat_map import draw_heat_map
from service.imaging.item_on_black import ITEM_ON_BLACK, PlacedItem, place_item
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
        return (*self.size, 3) if self.preprocessing == LETTERBOX else self.size


@dataclass(frozen=True)
class ModelInput:
    """A model's input: ``image`` is uint8 ``[height, width]``, or ``[height, width, 3]`` in RGB.

    ``source_pixels`` counts the pixels of the upload. ``placed`` is the item that the rule
    ``item-on-black`` found, and None if the image was taken as it is or the rule is another one.
    """

    image: NDArray[np.uint8]
    source_pixels: int
    placed: PlacedItem | None = None

    def to_png(self) -> bytes:
        """Encode the image that the model sees."""
        return _encode(Image.fromarray(self.image))

    def to_heat_map_png(self, activation: NDArray[np.float32]) -> bytes:
        """Draw an activation map over the RGB image that the model sees; see ``draw_heat_map``."""
        return _encode(draw_heat_map(self.image, activation))


def read_image(data: bytes, spec: InputSpec, max_pixels: int) -> ModelInput:
    """Turn the bytes of an image into the input that ``spec`` describes.

    Raises:
        ImageTooLargeError: The header declares more than ``max_pixels``. Nothing was decoded.
        UnreadableImageError: The bytes are not an image of an accepted format, or are damaged.
    """
    if spec.preprocessing == LETTERBOX:
        picture = read_picture(data, max_pixels, round(letterbox.REDUCED_SCALE * max(spec.size)))
        return ModelInput(fit_into_box(picture.image, spec.size), picture.source_pixels)
    picture = read_picture(data, max_pixels, item_on_black.REDUCED_SCALE * max(spec.size))
    image, placed = place_item(picture.image, spec.size)
    return ModelInput(image, picture.source_pixels, placed)


def _encode(image: Image.Image) -> bytes:
    buffer = BytesIO()
    # Of a photo of 160 x 160 pixels, level 6 takes three times as long for 7 % fewer bytes.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
