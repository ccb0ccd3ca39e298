"""A recipe: the settings of a training run, and the optimizer that they define."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras

NAMED_IF_CHANGED = (
    "momentum",
    "weight_decay",
    "label_smoothing",
    "distillation_temperature",
    "augmentation",
    "ema_momentum",
)


VALIDATION_UPLOADS = 1_500


@dataclass(frozen=True)
class PhotoRecipe:
    """The settings of a run that learns from photos instead of the data set alone.

    An epoch is ``steps_per_epoch`` batches. A batch holds ``photos_per_batch`` labelled photos,
    ``worn_per_batch`` worn garments and ``uploads_per_batch`` images of the data set, made into
    uploads. ``input_pixels`` is the height and width of the network's input. The blocks before
    ``first_trained_block`` keep their ImageNet weights. The run is calibrated on all photos that
    were kept back, and on ``validation_uploads`` uploads.
    """

    steps_per_epoch: int
    photos_per_batch: int
    worn_per_batch: int
    uploads_per_batch: int
    input_pixels: int
    first_trained_block: int
    validation_uploads: int = VALIDATION_UPLOADS

    def __str__(self) -> str:
        """Name what a batch holds and the size of its images."""
        return (
            f"{self.photos_per_batch} photos, {self.worn_per_batch} worn garments and "
            f"{self.uploads_per_batch} uploads of {self.input_pixels} pixels in a batch, "
            f"{self.steps_per_epoch} steps an epoch, blocks from {self.first_trained_block} trained"
        )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run except the network, the data and the seed.

    ``steps_per_epoch``: None means one pass over the training part. A number means that many
    batches from an endless stream of reshuffled passes, like ``repeat`` in ``tf.data``.
    ``distillation_temperature``: if it is set, teachers give the targets, and it softens both the
    teachers' and the student's probabilities. Label smoothing is then ignored. Teachers of a photo
    run answer for its uploads only; their temperature is 1.
    ``teachers_see_mirrored``: teachers average their answers to the image and its mirror image.
    ``ema_momentum``: if it is set, the final weights are an exponential moving average.
    ``early_stopping_patience``: stop after this many epochs without a lower validation loss.
    ``photo``: set if the run learns from photos.
    ``continues``: start from the last checkpoint of another run, with the state of its optimizer.
    ``fine_tunes``: start from the final weights of another run, with a new optimizer.
    ``published``: the test accuracy that the recipe's source reports, None if it reports none.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 128
    epochs: int = 10
    steps_per_epoch: int | None = None
    label_smoothing: float = 0.0
    distillation_temperature: float | None = None
    teachers_see_mirrored: bool = False
    augmentation: str = "none"
    ema_momentum: float | None = None
    early_stopping_patience: int | None = None
    validation_fraction: float = 1 / 12
    split_seed: int = 13
    photo: PhotoRecipe | None = None
    continues: bool = False
    fine_tunes: bool = False
    published: float | None = None

    def __str__(self) -> str:
        """Name the epochs, the optimizer, and the settings that differ from the default recipe."""
        batches = "" if self.steps_per_epoch is None else f" of {self.steps_per_epoch} steps"
        plain = Recipe()
        changed = [name for name in NAMED_IF_CHANGED if getattr(self, name) != getattr(plain, name)]
        words = [
            f"{self.epochs} {'more ' if self.continues else ''}epochs{batches}",
            f"{self.optimizer} {self.learning_rate:g} {self.schedule}",
            f"batch {self.batch_size}",
            *(f"{name.replace('_', ' ')} {getattr(self, name)}" for name in changed),
        ]
        if self.teachers_see_mirrored:
            words.append("teachers see the mirror image too")
        if self.early_stopping_patience is not None:
            words.append(f"stops after {self.early_stopping_patience} epochs without improvement")
        if self.photo is not None:
            words.append(str(self.photo))
        return ", ".join([*words, f"{self.validation_fraction:.0%} validation"])

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of photos in pixels. None: the size of the data set's images."""
        return None if self.photo is None else (self.photo.input_pixels, self.photo.input_pixels)

    def make_optimizer(self, total_steps: int) -> Any:
        """Build the Keras optimizer for a run of ``total_steps`` batches."""
        rate = self.make_schedule(total_steps)
        average: dict[str, Any] = {}
        if self.ema_momentum is not None:
            average = {"use_ema": True, "ema_momentum": self.ema_momentum}
        match self.optimizer:
            case "adam":
                return keras.optimizers.Adam(rate, **average)
            case "adamw":
                return keras.optimizers.AdamW(rate, weight_decay=self.weight_decay, **average)
            case "sgd":
                decay = self.weight_decay or None
                nesterov = self.momentum > 0
                return keras.optimizers.SGD(
                    rate, self.momentum, nesterov, weight_decay=decay, **average
                )

    def make_schedule(self, total_steps: int) -> Any:
        """Build the learning rate of a run: a number, or a Keras schedule of the step."""
        match self.schedule:
            case "constant":
                return self.learning_rate
            case "cosine":
                return keras.optimizers.schedules.CosineDecay(self.learning_rate, total_steps)
            case "onecycle":
                # "Super-Convergence" (Smith and Topin 2018): the rate rises from 1/25 of its peak
                # during the first 30 % of the steps, then falls to zero.
                rise = int(0.3 * total_steps)
                return keras.optimizers.schedules.CosineDecay(
                    self.learning_rate / 25,
                    total_steps - rise,
                    warmup_target=self.learning_rate,
                    warmup_steps=rise,
                )


def read_recipe(values: dict[str, Any]) -> Recipe:
    """Make a recipe from what ``dataclasses.asdict`` returned and JSON stored."""
    photo = values.get("photo")
    return Recipe(**{**values, "photo": None if photo is None else PhotoRecipe(**photo)})
