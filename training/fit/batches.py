"""The batches of an epoch: augmented samples, and the targets that a network learns."""

from __future__ import annotations

import functools
import math

import keras
import numpy as np
from numpy.typing import NDArray

from training.data.samples import Samples
from training.fit.augmentation import Batch, find_augmentation
from training.fit.distillation import load_teachers
from training.fit.runs import Config


class Batches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
    """The shuffled, augmented batches of one epoch: images float32 ``[N, H, W, 1]`` and targets.

    Pixels are in 0..255. Teachers give the targets, if the run has any.
    """

    def __init__(self, samples: Samples, config: Config) -> None:
        super().__init__()
        self._samples = samples
        self._seed = config.seed
        self._batch_size = config.recipe.batch_size
        self._endless = config.recipe.steps_per_epoch is not None
        self._count = config.recipe.steps_per_epoch or math.ceil(len(samples) / self._batch_size)
        self._augmentation = find_augmentation(config.recipe.augmentation)
        self._class_count = len(config.class_names)
        self._teachers = load_teachers(config)
        self.epoch = config.earlier_epochs

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        chosen = self._indices(index)
        images = self._samples.images[chosen].astype(np.float32)
        targets = np.eye(self._class_count, dtype=np.float32)[self._samples.labels[chosen]]
        generator = np.random.default_rng((self._seed, self.epoch, index))
        for step in self._augmentation:
            images, targets = step(images, targets, generator)
        if self._teachers is not None:
            targets = self._teachers.answer(images)
        return images[..., None], targets

    def _indices(self, index: int) -> NDArray[np.intp]:
        count = len(self._samples)
        if not self._endless:
            start = index * self._batch_size
            return _shuffle(self._seed, self.epoch, count)[start : start + self._batch_size]
        start = (self.epoch * self._count + index) * self._batch_size
        passes, places = np.divmod(np.arange(start, start + self._batch_size), count)
        return np.concatenate(
            [
                _shuffle(self._seed, int(number), count)[places[passes == number]]
                for number in np.unique(passes)
            ]
        )


@functools.lru_cache(maxsize=2)  # a batch may contain the end of one pass and the start of the next
def _shuffle(seed: int, number: int, count: int) -> NDArray[np.intp]:
    """Return the order of ``count`` samples in pass ``number`` through the data."""
    return np.random.default_rng((seed, number)).permutation(count)
