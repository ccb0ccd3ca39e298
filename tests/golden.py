"""The golden set: Fashion-MNIST images, and the answers of the Keras network to them.

The network is the one that the shipped model was exported from.
"""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE = Path(__file__).parent / "data" / "fashion-mnist-sample"
TOLERANCE = 1e-4  # allowed difference between Keras and ONNX Runtime


def images() -> NDArray[np.uint8]:
    """Read the images, uint8 ``[300, 28, 28]``."""
    content = gzip.decompress((SAMPLE / "images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def probabilities() -> NDArray[np.float32]:
    """Read Keras' probabilities, float32 ``[300, 10]``."""
    answers: NDArray[np.float32] = np.load(SAMPLE / "probabilities.npy")
    return answers
