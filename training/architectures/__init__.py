"""The networks by name, and the input and output layers that they share.

A network is a function (images in 0..1 ``[N, H, W, channels]``, number of classes) -> logits
``[N, classes]``. ``Architecture.build`` adds the scaling of pixels to 0..1, so every saved model
and exported graph contains it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from training.architectures.convnet import cnn_2x128, convnet_tf1
from training.architectures.efficientnet_lite import (
    efficientnet_lite0,
    lite0_transfer,
    load_lite0_weights,
    load_transfer_weights,
)
from training.architectures.mlp import mlp_64_64
from training.architectures.pre_activation import resnet_18, wide_resnet_16_8
from training.architectures.resnet import resnet_8, resnet_8_tiny
from training.architectures.stacked import cnn_1conv, cnn_3conv, cnn_4conv
from training.architectures.vgg import (
    load_imagenet_weights,
    vgg19_double_preprocessing,
    vgg19_transfer,
    vgg_like,
)
from training.errors import TrainingError


@dataclass(frozen=True)
class Architecture:
    """A network, and its number of parameters for 28x28 images of ten classes.

    ``load_pretrained`` puts weights from a file, a package or a download into a new model.
    ``is_for_photos``: the network takes RGB photos, and has one more output, for
    pictures that show none of the classes.
    """

    network: Callable[[Any, int], Any]
    parameters: int
    load_pretrained: Callable[[Any, Path | None], None] | None = None
    is_for_photos: bool = False

    def build(self, input_size: tuple[int, int], class_count: int) -> Any:
        """Build the Keras model: pixels 0..255 ``[N, H, W, 1]`` -> logits float32 ``[N, K]``.

        For photos it is RGB ``[N, H, W, 3]`` -> ``[N, K + 1]``.
        """
        image = keras.Input((*input_size, 3 if self.is_for_photos else 1), name="image")
        scaled = keras.layers.Rescaling(1 / 255, name="scale")(image)
        logits = self.network(scaled, class_count + self.is_for_photos)
        to_float32 = keras.layers.Activation("linear", dtype="float32", name="logits")
        return keras.Model(image, to_float32(logits))


ARCHITECTURES: Mapping[str, Architecture] = {
    "mlp-64-64": Architecture(mlp_64_64, 55_050),
    "convnet-tf1": Architecture(convnet_tf1, 3_274_634),
    "cnn-1conv": Architecture(cnn_1conv, 693_962),
    "cnn-3conv": Architecture(cnn_3conv, 241_546),
    "cnn-4conv": Architecture(cnn_4conv, 1_221_546),
    "vgg19-transfer": Architecture(vgg19_transfer, 24_224_330, load_imagenet_weights),
    "vgg19-double-preprocessing": Architecture(
        vgg19_double_preprocessing, 24_224_330, load_imagenet_weights
    ),
    "vgg19-random": Architecture(vgg19_transfer, 24_224_330),
    "vgg-like": Architecture(vgg_like, 7_001_194),
    "cnn-2x128": Architecture(cnn_2x128, 940_170),
    "resnet-8": Architecture(resnet_8, 586_666),
    "resnet-8-tiny": Architecture(resnet_8_tiny, 93_946),
    "efficientnet-lite0": Architecture(efficientnet_lite0, 3_427_115, load_lite0_weights, True),
    "lite0-transfer": Architecture(lite0_transfer, 3_578_282, load_transfer_weights),
    "resnet-18": Architecture(resnet_18, 11_178_826),
    "wide-resnet-16-8": Architecture(wide_resnet_16_8, 10_968_282),
}


COUNTED_LAYERS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def find_architecture(name: str) -> Architecture:
    """Look up a network by name.

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
    """Count the multiply-accumulate operations of convolutions and dense layers for one image."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += count_multiplications(layer)
        elif isinstance(layer, COUNTED_LAYERS):
            positions = math.prod(layer.output.shape[1:-1])
            total += positions * math.prod(layer.kernel.shape)
    return total
