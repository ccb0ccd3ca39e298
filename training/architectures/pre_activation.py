"""Residual networks in pre-activation order (He et al. 2016): large networks that teach small ones.

Each normalisation and ReLU is before a convolution, so the sum of a block stays linear.
"""

from __future__ import annotations

from typing import Any

from keras import layers


def resnet_18(images: Any, class_count: int) -> Any:
    """Pre-activation ResNet-18 with a 3x3 convolution as stem, as for CIFAR-10."""
    x = _convolution(images, 64, 3, 1)
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        x = _stage(x, filters, stride)
    return _classify(x, class_count)


def wide_resnet_16_8(images: Any, class_count: int) -> Any:
    """Wide ResNet of 16 layers, eight times as wide (Zagoruyko and Komodakis 2016)."""
    x = _convolution(images, 16, 3, 1)
    for filters, stride in ((128, 1), (256, 2), (512, 2)):
        x = _stage(x, filters, stride)
    return _classify(x, class_count)


def _stage(x: Any, filters: int, stride: int) -> Any:
    """Two blocks, of which the first changes the number of filters and the size."""
    return _block(_block(x, filters, stride), filters, 1)


def _block(x: Any, filters: int, stride: int) -> Any:
    activated = _activate(x)
    if stride > 1 or x.shape[-1] != filters:
        x = _convolution(activated, filters, 1, stride)
    residual = _activate(_convolution(activated, filters, 3, stride))
    return layers.Add()([x, _convolution(residual, filters, 3, 1)])


def _activate(x: Any) -> Any:
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def _convolution(x: Any, filters: int, size: int, stride: int) -> Any:
    options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    return layers.Conv2D(filters, size, stride, **options)(x)


def _classify(x: Any, class_count: int) -> Any:
    pooled = layers.GlobalAveragePooling2D(name="features")(_activate(x))
    return layers.Dense(class_count)(pooled)
