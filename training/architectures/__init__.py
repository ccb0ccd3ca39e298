"""Own the table of networks by name and the frame they share: pixels in, logits out.

A network is a function (images scaled to 0..1 ``[N, H, W, 1]``, number of classes) -> logits ``[N, classes]``.
Scaling is here and nowhere else, so it becomes part of every saved model and every exported graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from training.architectures.convnet import cnn_2x128, convnet_tf1
from training.architectures.mlp import mlp_64_64
from training.architectures.resnet import resnet_8, resnet_8_tiny
from training.architectures.stacked import cnn_1conv, cnn_3conv, cnn_4conv
from training.architectures.vgg import (
    load_imagenet_weights,
    vgg19_double_preprocessing,
    vgg19_transfer,
    vgg_like,
)
from training.errors import TrainingError
from training.fit.recipes import MODERN_RECIPES, Recipe


@dataclass(frozen=True)
class Architecture:
    """A network, its number of parameters on 28x28 images of ten classes, and its own recipes; the first is default.

    ``load_pretrained`` puts weights from a file, or downloaded, into parts of a new model that are not trained.
    """

    network: Callable[[Any, int], Any]
    parameters: int
    recipes: Mapping[str, Recipe]
    load_pretrained: Callable[[Any, Path | None], None] | None = None

    def find_recipe(self, name: str) -> Recipe:
        """Look up a recipe of this architecture or one that serves any.

        Raises:
            TrainingError: There is no recipe of this name.
        """
        found = {**MODERN_RECIPES, **self.recipes}
        try:
            return found[name]
        except KeyError:
            raise TrainingError(
                f"there is no recipe {name!r} here; choose one of {', '.join(found)}"
            ) from None

    def build(self, input_size: tuple[int, int], class_count: int) -> Any:
        """Build the Keras model: pixels 0..255 ``[N, H, W, 1]`` in, float32 logits ``[N, classes]`` out."""
        image = keras.Input((*input_size, 1), name="image")
        logits = self.network(keras.layers.Rescaling(1 / 255, name="scale")(image), class_count)
        return keras.Model(
            image, keras.layers.Activation("linear", dtype="float32", name="logits")(logits)
        )


def _series(plain: float, augmented: float) -> dict[str, Recipe]:
    """Recipes of the tutorial series: 10 epochs plain, then 50 more with augmentation in either reading of shear."""
    first = Recipe(batch_size=256, validation_fraction=0.2, epochs=10, published=plain)
    second = replace(first, epochs=50, continues=True, published=augmented)
    return {
        "plain": first,
        "augmented-degrees": replace(second, augmentation="tutorial-degrees"),
        "augmented-radians": replace(second, augmentation="tutorial-radians"),
    }


_SGD = Recipe("sgd", batch_size=400, steps_per_epoch=100, epochs=20)
_WIDE = Recipe(batch_size=128, validation_fraction=0.1, augmentation="tutorial-degrees")
_VGG19 = Recipe(batch_size=256, epochs=10)
# Keras' decay acts outside the momentum, so 5e-3 here is the 5e-4 of recipes that add it to the gradient.
_RESNET = Recipe(
    "sgd",
    0.2,
    "onecycle",
    momentum=0.9,
    weight_decay=5e-3,
    batch_size=256,
    epochs=50,
    label_smoothing=0.1,
    augmentation="modern-cutout",
    ema_momentum=0.995,
)
_ROBUST = replace(
    _RESNET, learning_rate=0.04, epochs=10, augmentation="deployment", fine_tunes=True
)
_PHOTOGRAPHIC = replace(_ROBUST, epochs=8, augmentation="photographic")
# A small network underfits: it is spared cutout, and the teacher's answers take the place of smoothing.
_DISTILLED = replace(
    _RESNET, epochs=24, augmentation="flip-shift", label_smoothing=0.0, distillation_temperature=1.0
)
# Born again (Furlanello et al. 2018): the same network learns from the run before it, asked both ways round.
_BORN_AGAIN = replace(
    _RESNET, label_smoothing=0.0, distillation_temperature=1.0, teachers_see_mirrored=True
)
# Half of the photos are kept back for the figures of the first; the second goes on from it with all of them.
_HALF_OF_PHOTOS = replace(
    _RESNET,
    epochs=30,
    label_smoothing=0.0,
    distillation_temperature=1.0,
    photos_from="half",
    photos_per_batch=64,
)
_PHOTOS = replace(_HALF_OF_PHOTOS, photos_from="all", learning_rate=0.1, epochs=24, fine_tunes=True)

ARCHITECTURES: Mapping[str, Architecture] = {
    "mlp-64-64": Architecture(
        mlp_64_64, 55_050, {"adam": Recipe(batch_size=32, epochs=5, published=0.8725)}
    ),
    "convnet-tf1": Architecture(
        convnet_tf1,
        3_274_634,
        {
            "adam": Recipe(batch_size=128, epochs=10),
            "adam-flip-shift": Recipe(
                batch_size=128, epochs=20, schedule="cosine", augmentation="flip-shift"
            ),
            "sgd-2000-steps": replace(_SGD, published=0.7077),
            "sgd-4000-steps": replace(_SGD, continues=True, published=0.762),
            # The source says no more than that the training was long; 100,000 steps in all is our reading.
            "sgd-long": replace(_SGD, epochs=960, continues=True, published=0.916),
        },
    ),
    "cnn-1conv": Architecture(cnn_1conv, 693_962, _series(0.9104, 0.9229)),
    "cnn-3conv": Architecture(cnn_3conv, 241_546, _series(0.9079, 0.9117)),
    "cnn-4conv": Architecture(cnn_4conv, 1_221_546, _series(0.9052, 0.9352)),
    "vgg19-transfer": Architecture(
        vgg19_transfer, 24_224_330, {"adam": _VGG19}, load_imagenet_weights
    ),
    "vgg19-double-preprocessing": Architecture(
        vgg19_double_preprocessing,
        24_224_330,
        {"adam": replace(_VGG19, published=0.7664)},
        load_imagenet_weights,
    ),
    "vgg19-random": Architecture(vgg19_transfer, 24_224_330, {"adam": _VGG19}),
    "vgg-like": Architecture(
        vgg_like,
        7_001_194,
        {"adam": Recipe(batch_size=256, epochs=50, early_stopping_patience=5, published=0.9304)},
    ),
    "cnn-2x128": Architecture(
        cnn_2x128,
        940_170,
        {
            "augmented-10": replace(_WIDE, epochs=10, published=0.9021),
            "augmented-50": replace(_WIDE, epochs=50, continues=True, published=0.9159),
        },
    ),
    "resnet-8": Architecture(
        resnet_8,
        586_666,
        {
            "cutout": _RESNET,
            "cutout-100": replace(_RESNET, epochs=100),
            "born-again": _BORN_AGAIN,
            "robust": _ROBUST,
            "photographic": _PHOTOGRAPHIC,
            "half-of-photos": _HALF_OF_PHOTOS,
            "photos": _PHOTOS,
        },
    ),
    "resnet-8-tiny": Architecture(
        resnet_8_tiny,
        93_946,
        {
            "cutout": _RESNET,
            "distilled": _DISTILLED,
            "distilled-40": replace(_DISTILLED, epochs=40),
        },
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
        raise TrainingError(
            f"there is no architecture {name!r}; choose one of {', '.join(ARCHITECTURES)}"
        ) from None


def count_multiplications(model: Any) -> int:
    """Count the multiply-accumulate operations of one image in the convolutions and dense layers of a model."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += count_multiplications(layer)
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            positions = math.prod(layer.output.shape[1:-1])
            total += positions * math.prod(layer.kernel.shape)
    return total
