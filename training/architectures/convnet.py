"""The convolutional networks with 5x5 kernels: TensorFlow 1's tutorial and a wider network."""

from __future__ import annotations

from typing import Any

from keras import layers


def convnet_tf1(images: Any, class_count: int) -> Any:
    """The network of TensorFlow 1's "Build a Convolutional Neural Network using Estimators"."""
    x = layers.Conv2D(32, 5, padding="same", activation="relu")(images)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(64, 5, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(1024, activation="relu")(x)
    x = layers.Dropout(0.4)(x)
    return layers.Dense(class_count)(x)


def cnn_2x128(images: Any, class_count: int) -> Any:
    """Two wide 5x5 convolutions, then dense 256."""
    x = layers.Conv2D(128, 5, activation="relu")(images)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(128, 5, activation="relu")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(256, activation="relu")(x)
    return layers.Dense(class_count)(x)
