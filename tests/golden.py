"""The golden set: Fashion-MNIST images, and the answers of the shipped models to them.

Those of ``garments`` come from its Keras network. Those of ``resnet-8`` come from its graph, which
the export compared with Keras.
"""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE = Path(__file__).parent / "data" / "fashion-mnist-sample"
TOLERANCE = 1e-4  # allowed difference between the golden set and a service
TOLERANCES = {"resnet-8": TOLERANCE, "garments": 5e-3}  # garments' file has weights in float16


def images() -> NDArray[np.uint8]:
    """Read the images, uint8 ``[300, 28, 28]``."""
    content = gzip.decompress((SAMPLE / "images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def probabilities(model: str = "resnet-8") -> NDArray[np.float32]:
    """Read the probabilities of a model to the images, float32 ``[300, 10]``."""
    answers: NDArray[np.float32] = np.load(SAMPLE / f"{model}.npy")
    return answers
