"""The batches of a photo network: varied pictures of photos, worn garments and uploads."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from service.imaging.letterbox import fit_into_box
from training.data.photos.collection import Collection, Labelled
from training.data.photos.varied import vary
from training.fit.recipe import PhotoRecipe

Targets = NDArray[np.float32]
PhotoBatch = tuple[NDArray[np.float32], Targets]


class PhotoBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
    """Batches of images float32 ``[N, H, W, 3]`` in 0..255 and targets ``[N, classes + 1]``.

    A target is 1 for each possible class of the picture. The last column stands for none of them.
    """

    def __init__(
        self,
        collection: Collection,
        recipe: PhotoRecipe,
        class_count: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__(workers=1, max_queue_size=6)  # a thread draws while the network learns
        self._sources = (
            (recipe.photos_per_batch, collection.photos),
            (recipe.worn_per_batch, collection.worn),
            (recipe.uploads_per_batch, collection.uploads),
        )
        self._size = (recipe.view_pixels, recipe.view_pixels)
        self._class_count, self._steps, self._seed = class_count, steps, seed
        self.epoch = 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> PhotoBatch:
        generator = np.random.default_rng((self._seed, self.epoch, index))
        drawn = [source.draw(generator) for count, source in self._sources for _ in range(count)]
        images = [fit_into_box(vary(each.picture, generator), self._size) for each in drawn]
        return np.stack(images).astype(np.float32), encode_targets(drawn, self._class_count)


def encode_targets(drawn: list[Labelled], class_count: int) -> Targets:
    """Encode possible classes as ``[N, classes + 1]`` of zeros and ones."""
    targets = np.zeros((len(drawn), class_count + 1), np.float32)
    for row, each in zip(targets, drawn, strict=True):
        row[list(each.classes) or [class_count]] = 1
    return targets


@keras.saving.register_keras_serializable("training")
class PossibleClassesLoss(keras.losses.Loss):  # type: ignore[misc] # Keras has no types
    """The negative log-likelihood of "one of the possible classes", with label smoothing.

    With one possible class it is cross-entropy. With several, the network may choose among them
    (Jin and Ghahramani 2002), where equal targets would teach it to hesitate.
    """

    def __init__(self, smoothing: float = 0.0, name: str = "possible", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Compute the loss ``[N]`` of logits ``y_pred`` ``[N, classes + 1]``."""
        logs = keras.ops.log_softmax(y_pred)
        possible = keras.ops.logsumexp(logs + keras.ops.log(y_true + 1e-9), axis=1)
        return -(1 - self.smoothing) * possible - self.smoothing * keras.ops.mean(logs, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return the settings of this loss that a checkpoint stores."""
        return {**super().get_config(), "smoothing": self.smoothing}


@keras.saving.register_keras_serializable("training")
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Return 1 where the most likely class is possible, else 0: ``[N]``."""
    best = keras.ops.argmax(y_pred, axis=1)
    return keras.ops.take_along_axis(y_true, best[:, None], axis=1)[:, 0]
