"""The batches of a photo network: varied pictures of photos, worn garments and uploads."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from service.imaging.letterbox import fit_into_box
from training.data.photos.collection import (
    Collection,
    Labelled,
    PhotoFolders,
    open_collection,
)
from training.data.photos.found import FoundItem
from training.data.photos.varied import vary
from training.data.samples import Samples
from training.errors import RunError
from training.fit.distillation import Teachers, load_teachers
from training.fit.recipe import PhotoRecipe
from training.fit.runs import Config

Targets = NDArray[np.float32]
PhotoBatch = tuple[NDArray[np.float32], Targets]


VALIDATION_COUNTS = 300, 240, 300  # photos, worn items and uploads, measured after each epoch


class PhotoBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
    """Batches of images float32 ``[N, H, W, 3]`` in 0..255 and targets ``[N, classes + 1]``.

    A target is 1 for each possible class of the picture. The last column stands for none of them.
    The targets of pictures that are made of the data set are the teachers' answers, if there are
    teachers. They see the image of the data set as it is.
    """

    def __init__(
        self,
        collection: Collection,
        recipe: PhotoRecipe,
        class_count: int,
        seed: int,
        teachers: Teachers | None = None,
    ) -> None:
        super().__init__(workers=1, max_queue_size=6)  # a thread draws while the network learns
        self._collection = collection
        self._teachers = teachers
        self._counts = recipe.photos_per_batch, recipe.worn_per_batch, recipe.uploads_per_batch
        self._size = (recipe.input_pixels, recipe.input_pixels)
        self._class_count, self._steps, self._seed = class_count, recipe.steps_per_epoch, seed
        self.epoch = 0

    def add_found(self, found: Sequence[FoundItem]) -> None:
        """Learn from garments in photos without masks too."""
        self._collection.worn.add_found(found)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> PhotoBatch:
        generator = np.random.default_rng((self._seed, self.epoch, index))
        drawn = self._collection.draw(*self._counts, generator)
        images = [fit_into_box(vary(each.picture, generator), self._size) for each in drawn]
        targets = encode_targets(drawn, self._class_count)
        if self._teachers is not None:
            made = [number for number, each in enumerate(drawn) if each.sample is not None]
            samples = np.stack([each.sample for each in drawn if each.sample is not None])
            targets[made, :-1] = self._teachers.answer(samples.astype(np.float32))
        return np.stack(images).astype(np.float32), targets


def encode_targets(drawn: list[Labelled], class_count: int) -> Targets:
    """Encode possible classes as ``[N, classes + 1]`` of zeros and ones."""
    targets = np.zeros((len(drawn), class_count + 1), np.float32)
    for row, each in zip(targets, drawn, strict=True):
        row[list(each.classes) or [class_count]] = 1
    return targets


def make_photo_batches(
    config: Config, folders: PhotoFolders, samples: Samples
) -> tuple[PhotoBatches, PhotoBatch]:
    """Open the photos of a run: the batches of training, and one large batch of validation.

    Raises:
        DataError: The photos cannot be read.
        RunError: The recipe does not learn from photos, or a teacher cannot be loaded.
    """
    recipe = config.recipe.photo
    if recipe is None:
        raise RunError(f"recipe {config.recipe_name} does not learn from photos")
    part, validation = config.split(samples)
    training = open_collection(folders, part)
    kept_back = open_collection(folders, validation, validation=True)
    class_count = len(config.class_names)
    teachers = load_teachers(config)
    batches = PhotoBatches(training, recipe, class_count, config.seed, teachers)
    return batches, draw_validation(kept_back, recipe.input_pixels, class_count)


def draw_validation(collection: Collection, side_pixels: int, class_count: int) -> PhotoBatch:
    """Draw pictures of validation, always the same ones, and do not vary them."""
    drawn = collection.draw(*VALIDATION_COUNTS, np.random.default_rng(0))
    size = (side_pixels, side_pixels)
    images = np.stack([fit_into_box(each.picture, size) for each in drawn])
    return images.astype(np.float32), encode_targets(drawn, class_count)
