"""Draw where a model looked: a heat map over the picture. Knows nothing about HTTP."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Dark blue, red and yellow differ in lightness too, so colour-blind people can tell them apart.
COLD, WARM, HOT = "#0d0887", "#cc4778", "#f0f921"  # ends and middle of matplotlib's map "plasma"
HEAT_OPACITY = 0.5


def draw_heat_map(image: NDArray[np.uint8], activation: NDArray[np.float32]) -> Image.Image:
    """Draw a class activation map over ``image``, uint8 ``[height, width, 3]``.

    ``activation``, float32 ``[rows, columns]``, is stretched over the image. Its lowest value is
    dark blue and its highest value is yellow (Zhou et al. 2016, "Learning Deep Features for
    Discriminative Localization"). A map of one value is dark blue everywhere.
    """
    low, high = activation.min(), activation.max()
    levels = 255 * ((activation - low) / max(high - low, np.finfo(np.float32).tiny))
    height, width = image.shape[:2]
    heat = Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC).convert("L")
    colours = ImageOps.colorize(heat, COLD, HOT, WARM)
    return Image.blend(Image.fromarray(image), colours, HEAT_OPACITY)
