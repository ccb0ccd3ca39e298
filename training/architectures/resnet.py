"""Residual networks of eight layers (He et al. 2015, section 4.2), made for 28x28 grey images and small processors.

Normalisation follows each convolution and precedes the ReLU, so that the exported graph folds it into the weights:
the pre-activation order (He et al. 2016) could not be folded, and at eight layers it gains nothing.
"""

from __future__ import annotations

from typing import Any

from keras import layers

EARLIER_FEATURES = "earlier_features"
"""The name of the layer whose mean over the image is kept beside the last features, to tell what is no garment."""


def resnet_8(images: Any, class_count: int) -> Any:
    """The network for serving: 32 filters at full size, 64 at half, 128 at a quarter."""
    return _resnet_8(images, class_count, (32, 64, 128))


def resnet_8_tiny(images: Any, class_count: int) -> Any:
    """The network of under 100,000 parameters."""
    return _resnet_8(images, class_count, (16, 32, 48))


def _resnet_8(images: Any, class_count: int, widths: tuple[int, int, int]) -> Any:
    x = layers.Activation("relu")(_normalised_convolution(images, widths[0], 3, 1))
    x = _block(x, widths[1], 2)
    x = _block(x, widths[2], 2, EARLIER_FEATURES)
    x = _block(x, widths[2], 1)
    return layers.Dense(class_count)(layers.GlobalAveragePooling2D(name="features")(x))


def _block(x: Any, filters: int, stride: int, name: str | None = None) -> Any:
    residual = layers.Activation("relu")(_normalised_convolution(x, filters, 3, stride))
    residual = _normalised_convolution(residual, filters, 3, 1)
    if stride > 1:
        # He et al. 2018, "Bag of Tricks", ResNet-D: a strided 1x1 convolution would ignore three pixels of four.
        x = _normalised_convolution(
            layers.AveragePooling2D(stride, padding="same")(x), filters, 1, 1
        )
    return layers.Activation("relu", name=name)(layers.Add()([x, residual]))


def _normalised_convolution(x: Any, filters: int, size: int, stride: int) -> Any:
    return layers.BatchNormalization()(
        layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
    )
