"""The answers of a model to images, computed by Keras or by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.samples import Images

Probabilities = NDArray[np.float32]
Distances = NDArray[np.float32]
NO_DISTANCES = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Answers:
    """The answers to N images: probabilities ``[N, classes]`` and distances ``[N]``.

    A model without calibration gives no distances: their shape is ``[0]``.
    """

    probabilities: Probabilities
    distances: Distances


def run_graph(session: Any, images: Images, batch_size: int) -> Answers:
    """Answer images ``[N, H, W]`` with a session of ONNX Runtime, in batches."""
    names = [output.name for output in session.get_outputs()]
    starts = range(0, len(images), batch_size)
    batches = [session.run(None, {"image": images[i : i + batch_size]}) for i in starts]
    columns = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
    outputs = dict(zip(names, columns, strict=True))
    return Answers(outputs["probabilities"], outputs.get("distance", NO_DISTANCES))


def answer(model: Any, images: Images) -> Answers:
    """Answer images ``[N, H, W]`` with a Keras model, with or without calibration.

    A calibrated network for photos takes ``[N, H, W, 3]``.
    """
    if images.ndim == 4:
        return _join([_answer(model, images[i : i + 50]) for i in range(0, len(images), 50)])
    return _answer(model, images[..., None])


def _answer(model: Any, pixels: Images) -> Answers:
    outputs = model.predict(pixels.astype(np.float32), batch_size=500, verbose=0)
    if not isinstance(outputs, dict):
        outputs = {"logits": outputs, "distance": NO_DISTANCES}
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(outputs["logits"]))
    return Answers(np.asarray(probabilities, np.float32), outputs["distance"])


def _join(parts: list[Answers]) -> Answers:
    return Answers(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.distances for part in parts]),
    )


def predict(model: Any, images: Images) -> Probabilities:
    """Return the probabilities ``[N, classes]`` that a Keras model gives to images."""
    return answer(model, images).probabilities
