"""The fit of a network that learns from photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from service.imaging.letterbox import fit_into_box
from training.data.photos.collection import Collection, open_collection
from training.data.samples import Samples
from training.errors import RunError
from training.fit.photo_batches import (
    PhotoBatch,
    PhotoBatches,
    encode_targets,
)
from training.fit.runs import Config

# The pictures on which the validation loss is measured after each epoch.
VALIDATION_PHOTOS, VALIDATION_WORN, VALIDATION_UPLOADS = 300, 240, 300


def make_photo_batches(
    config: Config, photos: Path, worn: Path, samples: Samples
) -> tuple[PhotoBatches, PhotoBatch]:
    """Open the photos of a run: the batches of training, and one large batch of validation.

    Raises:
        DataError: The photos cannot be read.
        RunError: The recipe does not learn from photos.
    """
    recipe = config.recipe
    if recipe.photo is None or recipe.steps_per_epoch is None:
        raise RunError(f"recipe {config.recipe_name} does not learn from photos")
    part, validation = config.split(samples)
    training = open_collection(photos, worn, part)
    kept_back = open_collection(photos, worn, validation, validation=True)
    class_count = len(config.class_names)
    batches = PhotoBatches(training, recipe.photo, class_count, recipe.steps_per_epoch, config.seed)
    return batches, draw_validation(kept_back, recipe.photo.view_pixels, class_count)


def draw_validation(collection: Collection, side_pixels: int, class_count: int) -> PhotoBatch:
    """Draw pictures of validation, always the same ones, and do not vary them."""
    generator = np.random.default_rng(0)
    drawn = [
        source.draw(generator)
        for count, source in (
            (VALIDATION_PHOTOS, collection.photos),
            (VALIDATION_WORN, collection.worn),
            (VALIDATION_UPLOADS, collection.uploads),
        )
        for _ in range(count)
    ]
    size = (side_pixels, side_pixels)
    images = np.stack([fit_into_box(each.picture, size) for each in drawn])
    return images.astype(np.float32), encode_targets(drawn, class_count)
