"""From the bytes of an image to a model's input; training uses it too."""

from service.imaging.files import Picture, read_picture
from service.imaging.item_on_black import ITEM_ON_BLACK
from service.imaging.letterbox import LETTERBOX
from service.imaging.model_input import (
    PREPROCESSINGS,
    SUPERSEDED,
    InputSpec,
    ModelInput,
    read_image,
)

__all__ = [
    "ITEM_ON_BLACK",
    "LETTERBOX",
    "PREPROCESSINGS",
    "SUPERSEDED",
    "InputSpec",
    "ModelInput",
    "Picture",
    "read_image",
    "read_picture",
]
