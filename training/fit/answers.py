"""What a model answers to images, in Keras or in ONNX Runtime."""

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
    """What a model gives N images: probabilities ``[N, classes]``, distances ``[N]``, or none if not calibrated."""

    probabilities: Probabilities
    distances: Distances


def run_graph(session: Any, images: Images, batch_size: int) -> Answers:
    """Return what a session of ONNX Runtime answers to images ``[N, H, W]``."""
    names = [output.name for output in session.get_outputs()]
    starts = range(0, len(images), batch_size)
    batches = [session.run(None, {"image": images[i : i + batch_size]}) for i in starts]
    outputs = {
        name: np.concatenate(parts)
        for name, parts in zip(names, zip(*batches, strict=True), strict=True)
    }
    return Answers(outputs["probabilities"], outputs.get("distance", NO_DISTANCES))


def answer(model: Any, images: Images) -> Answers:
    """Return what a Keras model of logits, calibrated or not, answers to images ``[N, H, W]``."""
    outputs = model.predict(images[..., None].astype(np.float32), batch_size=500, verbose=0)
    logits, distances = (
        (outputs["logits"], outputs["distance"])
        if isinstance(outputs, dict)
        else (outputs, NO_DISTANCES)
    )
    return Answers(
        np.asarray(keras.ops.convert_to_numpy(keras.ops.softmax(logits)), dtype=np.float32),
        distances,
    )


def predict(model: Any, images: Images) -> Probabilities:
    """Return the probabilities ``[N, classes]`` that a Keras model of logits gives images ``[N, H, W]``."""
    return answer(model, images).probabilities
