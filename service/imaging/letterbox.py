"""The rule ``letterbox``: the whole photo in RGB, scaled to fit, with grey bars around it.

Only models with an RGB input need it. Knows nothing about HTTP or the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LETTERBOX = "letterbox"
BAR_GREY = 127  # the models' normalisation maps this value to about 0


def letterbox(image: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Turn an upright ``image`` into uint8 ``[height, width, 3]`` of ``size`` (height, width).

    The image keeps its proportions, is as large as fits, and is centred; small images are
    enlarged too. The bars beside it are grey.
    """
    height, width = size
    scale = min(width / image.width, height / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    fitted = image.convert("RGB").resize(inner, Image.Resampling.BILINEAR, reducing_gap=2.0)
    boxed = np.full((height, width, 3), BAR_GREY, np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    boxed[top : top + inner[1], left : left + inner[0]] = np.asarray(fitted)
    return boxed
