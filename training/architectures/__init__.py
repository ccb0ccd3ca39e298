"""Own the table of networks by name and the frame they share: uint8 pixels in, logits out.

A network is a function (images scaled to 0..1 ``[N, H, W, 1]``, number of classes) -> logits ``[N, classes]``.
Scaling is here and nowhere else, so it becomes part of every saved model and every exported graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from training.architectures.convnet import cnn_2x128, convnet_tf1
from training.architectures.mlp import mlp_64_64
from training.architectures.stacked import cnn_1conv, cnn_3conv, cnn_4conv
from training.errors import TrainingError
from training.recipes import Recipe


@dataclass(frozen=True)
class Architecture:
    """A network, its number of parameters on 28x28 images of ten classes, and its recipes; the first is the default."""

    network: Callable[[Any, int], Any]
    parameters: int
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    def find_recipe(self, name: str) -> Recipe:
        """Look a recipe up by name.

        Raises:
            TrainingError: The architecture has no recipe of this name.
        """
        try:
            return self.recipes[name]
        except KeyError:
            raise TrainingError(f"there is no recipe {name!r} here; choose one of {', '.join(self.recipes)}") from None

    def build(self, input_size: tuple[int, int], class_count: int) -> Any:
        """Build the Keras model: pixels 0..255 ``[N, H, W, 1]`` in, float32 logits ``[N, classes]`` out."""
        image = keras.Input((*input_size, 1), name="image")
        logits = self.network(keras.layers.Rescaling(1 / 255, name="scale")(image), class_count)
        return keras.Model(image, keras.layers.Activation("linear", dtype="float32", name="logits")(logits))


ARCHITECTURES: Mapping[str, Architecture] = {
    "mlp-64-64": Architecture(
        mlp_64_64,
        55_050,
        {"adam": Recipe(batch_size=32, epochs=5, published=0.8725)},
    ),
    "convnet-tf1": Architecture(
        convnet_tf1,
        3_274_634,
        {
            "adam": Recipe(batch_size=128, epochs=10),
            "adam-flip-shift": Recipe(batch_size=128, epochs=20, schedule="cosine", augmentation="flip-shift"),
            "sgd-2000-steps": Recipe("sgd", batch_size=400, steps_per_epoch=100, epochs=20, published=0.7077),
            "sgd-4000-steps": Recipe(
                "sgd", batch_size=400, steps_per_epoch=100, epochs=20, continues=True, published=0.762
            ),
        },
    ),
    "cnn-1conv": Architecture(
        cnn_1conv,
        693_962,
        {"plain": Recipe(batch_size=256, validation_fraction=0.2, epochs=10, published=0.9104)},
    ),
    "cnn-3conv": Architecture(
        cnn_3conv,
        241_546,
        {"plain": Recipe(batch_size=256, validation_fraction=0.2, epochs=10, published=0.9079)},
    ),
    "cnn-4conv": Architecture(
        cnn_4conv,
        1_221_546,
        {"plain": Recipe(batch_size=256, validation_fraction=0.2, epochs=10, published=0.9052)},
    ),
    "cnn-2x128": Architecture(
        cnn_2x128,
        940_170,
        {"plain": Recipe(batch_size=128, validation_fraction=0.1, epochs=10)},
    ),
}


def find_architecture(name: str) -> Architecture:
    """Look a network up by name.

    Raises:
        TrainingError: There is no network of this name.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise TrainingError(f"there is no architecture {name!r}; choose one of {', '.join(ARCHITECTURES)}") from None
