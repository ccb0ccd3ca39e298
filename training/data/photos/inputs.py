"""Images of the data set as inputs of a model of either kind."""

from __future__ import annotations

import numpy as np
from PIL import Image

from service.imaging.letterbox import LETTERBOX, fit_into_box
from service.imaging.model_input import InputSpec
from training.data.samples import Images


def to_inputs(images: Images, spec: InputSpec) -> Images:
    """Return images ``[N, H, W]`` as they are, or as ``[N, H, W, 3]`` for a model for photos."""
    if spec.preprocessing != LETTERBOX:
        return images
    return np.stack([fit_into_box(Image.fromarray(image), spec.size) for image in images])
