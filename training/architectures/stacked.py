"""The tutorial series of one, three and four 3x3 convolutions with dropout."""

from __future__ import annotations

from typing import Any

from keras import layers


def cnn_1conv(images: Any, class_count: int) -> Any:
    """One convolution."""
    x = layers.Conv2D(32, 3, activation="relu")(images)
    x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    return layers.Dense(class_count)(x)


def cnn_3conv(images: Any, class_count: int) -> Any:
    """Three convolutions with dropout after each."""
    x = layers.Conv2D(32, 3, activation="relu")(images)
    x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Conv2D(64, 3, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Conv2D(128, 3, activation="relu")(x)
    x = layers.Dropout(0.4)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    return layers.Dense(class_count)(x)


def cnn_4conv(images: Any, class_count: int) -> Any:
    """Four convolutions and two dense layers, each normalised after its ReLU."""
    x = _normalised_convolution(images, 32)
    x = _normalised_convolution(x, 32)
    x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.25)(x)
    x = _normalised_convolution(x, 64)
    x = layers.Dropout(0.25)(x)
    x = _normalised_convolution(x, 128)
    x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)
    for width in (512, 128):
        x = layers.Dense(width, activation="relu")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Dropout(0.5)(x)
    return layers.Dense(class_count)(x)


def _normalised_convolution(x: Any, filters: int) -> Any:
    return layers.BatchNormalization()(layers.Conv2D(filters, 3, activation="relu")(x))
