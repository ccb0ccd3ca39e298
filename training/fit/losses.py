"""The losses that a recipe asks for."""

from __future__ import annotations

from typing import Any

import keras

from training.fit.recipe import Recipe


def make_loss(recipe: Recipe) -> Any:
    """Build the Keras loss that a recipe asks for."""
    if recipe.photo is not None:
        return PossibleClassesLoss(recipe.label_smoothing)
    if recipe.distillation_temperature is not None:
        return DistillationLoss(recipe.distillation_temperature)
    smoothing = recipe.label_smoothing
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)


@keras.saving.register_keras_serializable("training")
class DistillationLoss(keras.losses.Loss):  # type: ignore[misc] # Keras has no types
    """Cross-entropy of the student's softened logits.

    The factor T^2 keeps the gradients at about the same size for every temperature T.
    """

    def __init__(
        self, temperature: float = 1.0, name: str = "distillation", **options: Any
    ) -> None:
        super().__init__(name=name, **options)
        self.temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss ``[N]`` of logits ``y_pred`` ``[N, classes]``."""
        softened = keras.losses.categorical_crossentropy(
            y_true, y_pred / self.temperature, from_logits=True
        )
        return self.temperature**2 * softened

    def get_config(self) -> dict[str, Any]:
        """Return the settings of this loss that a checkpoint stores."""
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable("training")
class PossibleClassesLoss(keras.losses.Loss):  # type: ignore[misc] # Keras has no types
    """The negative log-likelihood of "one of the possible classes", with label smoothing.

    A target is 1 for each possible class. With one possible class the loss is cross-entropy. With
    several, the network may choose among them (Jin and Ghahramani 2002), where equal targets would
    teach it to hesitate. Targets below 1 are a teacher's probabilities: the loss is cross-entropy.
    """

    def __init__(self, smoothing: float = 0.0, name: str = "possible", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss ``[N]`` of logits ``y_pred`` ``[N, classes + 1]``."""
        logs = keras.ops.log_softmax(y_pred)
        possible = keras.ops.logsumexp(logs + keras.ops.log(y_true + 1e-9), axis=1)
        smoothed = (1 - self.smoothing) * possible + self.smoothing * keras.ops.mean(logs, axis=1)
        taught = keras.ops.sum(y_true * logs, axis=1)
        return -keras.ops.where(keras.ops.max(y_true, axis=1) < 1, taught, smoothed)

    def get_config(self) -> dict[str, Any]:
        """Return the settings of this loss that a checkpoint stores."""
        return {**super().get_config(), "smoothing": self.smoothing}


@keras.saving.register_keras_serializable("training")  # type: ignore[untyped-decorator] # as above
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Return 1 where the most likely class is possible, else 0: ``[N]``."""
    best = keras.ops.argmax(y_pred, axis=1)
    return keras.ops.take_along_axis(y_true, best[:, None], axis=1)[:, 0]
