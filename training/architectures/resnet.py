"""Residual networks of eight layers (He et al. 2015, section 4.2) for 28x28 grey images and CPUs.

Each normalisation is between a convolution and its ReLU, so that ONNX Runtime can fold it into the
convolution's weights. The pre-activation order (He et al. 2016) cannot be folded, and gains nothing
at eight layers.
"""

from __future__ import annotations

from typing import Any

from keras import layers

EARLIER_FEATURES = "earlier_features"
"""The layer whose pooled output the distance uses in addition to the last features."""


def resnet_8(images: Any, class_count: int) -> Any:
    """The network for serving: 32 filters at full size, 64 at half, 128 at a quarter."""
    return _resnet_8(images, class_count, (32, 64, 128))


def resnet_8_tiny(images: Any, class_count: int) -> Any:
    """The network with fewer than 100,000 parameters."""
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
        # ResNet-D of "Bag of Tricks" (He et al. 2018): a strided 1x1 convolution would ignore three
        # of four pixels.
        pooled = layers.AveragePooling2D(stride, padding="same")(x)
        x = _normalised_convolution(pooled, filters, 1, 1)
    return layers.Activation("relu", name=name)(layers.Add()([x, residual]))


def _normalised_convolution(x: Any, filters: int, size: int, stride: int) -> Any:
    convolution = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)
    return layers.BatchNormalization()(convolution(x))
