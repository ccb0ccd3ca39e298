"""Images for tests, as the bytes of files."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FAULTS = Path(__file__).parents[1] / "data" / "faults"


def fault(name: str) -> bytes:
    """Read a file of tests/data/faults."""
    return (FAULTS / name).read_bytes()


def encode(pixels: NDArray[Any] | Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """Encode pixels, uint8 ``[height, width]`` or ``[height, width, 3]``, as an image file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw uniform grey noise, uint8 ``[height, width]``."""
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
