"""From the bytes of an image to a model's input; training uses it too."""

from service.imaging.files import Picture, read_picture
from service.imaging.model_input import PREPROCESSING, SUPERSEDED, ModelInput, read_image

__all__ = ["PREPROCESSING", "SUPERSEDED", "ModelInput", "Picture", "read_image", "read_picture"]
