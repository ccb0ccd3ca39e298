"""The dense network of the basic classification tutorials."""

from __future__ import annotations

from typing import Any

from keras import layers


def mlp_64_64(images: Any, class_count: int) -> Any:
    """Flatten, dense 64, dense 64, logits."""
    x = layers.Flatten()(images)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dense(64, activation="relu")(x)
    return layers.Dense(class_count)(x)
