"""The VGG family: a small relative trained from scratch, and VGG19 as a frozen extractor of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import layers

from training.errors import TrainingError

VGG19_SIZE = (150, 150)


def vgg_like(images: Any, class_count: int) -> Any:
    """Six 3x3 convolutions in two blocks; the source names no dropout rates, these are the usual ones."""
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
    """Frozen VGG19 features of the enlarged image, preprocessed as VGG19 was trained, then a dense head."""
    return _vgg19(images, class_count, scale=255)


def vgg19_double_preprocessing(images: Any, class_count: int) -> Any:
    """The same with the published mistake: VGG19's preprocessing of images that were scaled to 0..1 before."""
    return _vgg19(images, class_count, scale=1)


def load_imagenet_weights(model: Any, weights: Path | None) -> None:
    """Put ImageNet weights into a model's VGG19 part: from ``weights``, or downloaded by Keras.

    Raises:
        TrainingError: The weights can neither be read nor downloaded.
    """
    try:
        if weights is None:
            downloaded = keras.applications.VGG19(include_top=False, input_shape=(*VGG19_SIZE, 3))
            model.get_layer("vgg19").set_weights(downloaded.get_weights())
        else:
            model.get_layer("vgg19").load_weights(weights)
    except (
        Exception
    ) as error:  # Keras raises a bare Exception for a failed download, h5py various for a bad file
        raise TrainingError(
            f"VGG19's ImageNet weights cannot be had ({error}): give Keras' "
            "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5 with --weights, or train vgg19-random, "
            "which is the same network with random features and says so in its name"
        ) from error


def _convolution(x: Any, filters: int) -> Any:
    return layers.Conv2D(filters, 3, padding="same", activation="relu")(x)


def _vgg19(images: Any, class_count: int, scale: int) -> Any:
    x = layers.Resizing(*VGG19_SIZE)(images)
    # Three equal channels less the mean of ImageNet's blue, green and red: keras.applications.vgg19.preprocess_input.
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
