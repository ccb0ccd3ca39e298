"""The VGG family: a small network trained from scratch, and VGG19 as a frozen feature extractor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import layers

from training.errors import TrainingError

VGG19_SIZE = (150, 150)


def vgg_like(images: Any, class_count: int) -> Any:
    """Six 3x3 convolutions. The source gives no dropout rates, so they are the usual ones."""
    x = _convolution(_convolution(images, 32), 32)
    x = layers.Dropout(0.25)(x)
    x = layers.MaxPooling2D()(_convolution(x, 64))
    x = layers.Dropout(0.25)(x)
    x = _convolution(_convolution(x, 128), 128)
    x = layers.MaxPooling2D()(_convolution(x, 256))
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)
    for width in (512, 64):
        x = layers.Dense(width, activation="relu")(x)
        x = layers.Dropout(0.5)(x)
    return layers.Dense(class_count)(x)


def vgg19_transfer(images: Any, class_count: int) -> Any:
    """Frozen VGG19 features of the enlarged image with VGG19's preprocessing, then a dense head."""
    return _vgg19(images, class_count, scale=255)


def vgg19_double_preprocessing(images: Any, class_count: int) -> Any:
    """The same network with the published mistake: pixels in 0..1 go into the preprocessing."""
    return _vgg19(images, class_count, scale=1)


def load_imagenet_weights(model: Any, weights: Path | None) -> None:
    """Load ImageNet weights into a model's VGG19 part, from ``weights`` or a download by Keras.

    Raises:
        TrainingError: The weights cannot be read or downloaded.
    """
    try:
        if weights is None:
            downloaded = keras.applications.VGG19(include_top=False, input_shape=(*VGG19_SIZE, 3))
            model.get_layer("vgg19").set_weights(downloaded.get_weights())
        else:
            model.get_layer("vgg19").load_weights(weights)
    # Keras raises a bare Exception if a download fails. h5py raises many types for a damaged file.
    except Exception as error:
        raise TrainingError(
            f"VGG19's ImageNet weights cannot be loaded ({error}): pass Keras' "
            "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5 with --weights, "
            "or train vgg19-random, the same network with random features"
        ) from error


def _convolution(x: Any, filters: int) -> Any:
    return layers.Conv2D(filters, 3, padding="same", activation="relu")(x)


def _vgg19(images: Any, class_count: int, scale: int) -> Any:
    x = layers.Resizing(*VGG19_SIZE)(images)
    # The same as keras.applications.vgg19.preprocess_input: subtract ImageNet's mean blue, green
    # and red. The three channels are equal, because the images are grey.
    x = layers.Concatenate()([x, x, x])
    x = layers.Rescaling(scale, offset=[-103.939, -116.779, -123.68], name="preprocess")(x)
    features = keras.applications.VGG19(
        include_top=False, weights=None, input_shape=(*VGG19_SIZE, 3), name="vgg19"
    )
    features.trainable = False
    x = layers.Flatten()(features(x))
    x = layers.Dense(512, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return layers.Dense(class_count)(x)
