"""Own the way from samples to a trained run folder. Must never open the test set or import TensorFlow.

Everything random in an epoch comes from (seed, epoch, batch) or from state saved in the checkpoint, so a run that is
interrupted and resumed ends with the same weights as one that is not.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.architectures import find_architecture
from training.data.photos.table import hash_photos
from training.data.photos.views import Views, make_views
from training.data.samples import Samples, Source
from training.errors import RunError
from training.fit.augmentation import find_augmentation
from training.fit.distillation import DistillationLoss, Teachers
from training.fit.recipe import Recipe
from training.fit.runs import (
    MODEL_FILE,
    Config,
    describe_making,
    load_model,
    read_config,
    read_history,
    write_config,
    write_history,
)
from training.plots import plot_history


class Batches(keras.utils.PyDataset):  # type: ignore[misc] # Keras has no types
    """The batches of one epoch: images float32 ``[N, H, W, 1]`` of 0..255 and targets, shuffled, augmented.

    Views of photos are drawn beside the samples where the recipe learns from photos; teachers are not asked about them.
    """

    def __init__(self, samples: Samples, config: Config, views: Views | None = None) -> None:
        super().__init__()
        self._samples = samples
        self._views = views
        self._views_per_batch = config.recipe.photos_per_batch
        self._seed = config.seed
        self._batch_size = config.recipe.batch_size
        self._endless = config.recipe.steps_per_epoch is not None
        self._count = config.recipe.steps_per_epoch or math.ceil(len(samples) / self._batch_size)
        self._augmentation = find_augmentation(config.recipe.augmentation)
        self._class_count = len(config.class_names)
        self._teachers = _find_teachers(config)
        self.epoch = config.earlier_epochs

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        chosen = self._indices(index)
        images = self._samples.images[chosen].astype(np.float32)
        targets = np.eye(self._class_count, dtype=np.float32)[self._samples.labels[chosen]]
        generator = np.random.default_rng((self._seed, self.epoch, index))
        if self._views is not None:
            drawn = generator.integers(0, len(self._views.images), self._views_per_batch)
            images = np.concatenate([images, self._views.images[drawn]])
            targets = np.concatenate([targets, self._views.targets[drawn]])
        for step in self._augmentation:
            images, targets = step(images, targets, generator)
        if self._teachers is not None:
            targets[: len(chosen)] = self._teachers.answer(images[: len(chosen)])
        return images[..., None], targets

    def _indices(self, index: int) -> NDArray[np.intp]:
        if not self._endless:
            return _shuffle(self._seed, self.epoch, len(self._samples))[
                index * self._batch_size : (index + 1) * self._batch_size
            ]
        start = (self.epoch * self._count + index) * self._batch_size
        stream = np.arange(start, start + self._batch_size)
        passes = stream // len(self._samples)
        return np.concatenate(
            [
                _shuffle(self._seed, int(number), len(self._samples))[
                    stream[passes == number] % len(self._samples)
                ]
                for number in np.unique(passes)
            ]
        )


@functools.lru_cache(
    maxsize=2
)  # a batch may need the end of one pass and the beginning of the next
def _shuffle(seed: int, number: int, count: int) -> NDArray[np.intp]:
    """Order the samples of one pass through the data."""
    return np.random.default_rng((seed, number)).permutation(count)


def _find_teachers(config: Config) -> Teachers | None:
    recipe = config.recipe
    if recipe.distillation_temperature is None:
        return None
    folders = [Path(folder) for folder in config.teachers]
    return Teachers(
        folders, config.class_names, recipe.distillation_temperature, recipe.teachers_see_mirrored
    )


class Recorder(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Keep the history and the checkpoint of each epoch; stop early where the recipe says so."""

    def __init__(self, folder: Path, batches: Batches, config: Config) -> None:
        super().__init__()
        self._folder = folder
        self._batches = batches
        self._seed = config.seed
        self._earlier_epochs = config.earlier_epochs
        self._patience = config.recipe.early_stopping_patience
        self._history = read_history(folder)
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Derive the randomness of the epoch from its number, in the batches and in dropout, and start its clock."""
        del logs
        self._batches.epoch = self._earlier_epochs + epoch
        # Keras saves no state of dropout. The second number counts the calls: there are fewer than 2**20 an epoch.
        for number, layer in enumerate(self.model.layers):
            if isinstance(layer, keras.layers.Dropout):
                layer.seed_generator.state.assign(
                    (1000 * self._seed + number, self._batches.epoch << 20)
                )
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the history first and the checkpoint last: only a checkpoint makes an epoch count as done."""
        row = {"epoch": self._earlier_epochs + epoch + 1, **(logs or {})}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["seconds"] = round(time.monotonic() - self._started, 1)
        self._history = [*self._history[:epoch], row]
        write_history(self._folder, self._history)
        _save_checkpoint(self._folder, self.model, epoch + 1)
        losses = [earlier["val_loss"] for earlier in self._history]
        if (
            self._patience is not None
            and len(losses) - 1 - int(np.argmin(losses)) >= self._patience
        ):
            self.model.stop_training = True


def plan(
    architecture: str,
    recipe_name: str,
    recipe: Recipe,
    source: Source,
    *,
    name: str,
    seed: int,
    precision: str = "float32",
    start_from: Path | None = None,
    teachers: Sequence[Path] = (),
    photos: Path | None = None,
) -> Config:
    """Compose the configuration of a run on ``source``.

    ``start_from`` is the folder of the run that it continues, ``teachers`` are folders of runs or bundles that it is
    distilled from, ``photos`` is the folder of those that it learns from as well.

    Raises:
        RunError: The recipe starts from another run, or has teachers or photos, and none is given; or the other way
            about.
        DataError: The photos cannot be read.
        TrainingError: There is no architecture or augmentation of this name.
    """
    find_augmentation(recipe.augmentation)
    _check_needs(recipe_name, recipe, start_from, teachers, photos)
    samples = source.training()
    model = find_architecture(architecture).build(samples.input_size, len(source.class_names))
    earlier = 0
    if start_from is not None:
        earlier = read_config(start_from).earlier_epochs + len(read_history(start_from))
    return Config(
        name=name,
        architecture=architecture,
        recipe_name=recipe_name,
        recipe=recipe,
        seed=seed,
        precision=precision,
        class_names=source.class_names,
        input_size=samples.input_size,
        parameters=model.count_params(),
        data_source=str(source),
        data_sha256=samples.sha256(),
        earlier_epochs=earlier,
        continued_from=None if start_from is None else start_from.name,
        teachers=tuple(teacher.as_posix() for teacher in teachers),
        photos_sha256=None if photos is None else hash_photos(photos),
        made_by=describe_making(),
    )


def _check_needs(
    recipe_name: str,
    recipe: Recipe,
    start_from: Path | None,
    teachers: Sequence[Path],
    photos: Path | None,
) -> None:
    needs_start, needs_teacher = (
        recipe.continues or recipe.fine_tunes,
        recipe.distillation_temperature is not None,
    )
    if needs_start and start_from is None:
        raise RunError(f"recipe {recipe_name} continues another run: name its folder with --from")
    if start_from is not None and not needs_start:
        raise RunError(f"recipe {recipe_name} starts from a new network: leave --from out")
    if needs_teacher and not teachers:
        raise RunError(f"recipe {recipe_name} needs a teacher: name a run or bundle with --teacher")
    if teachers and not needs_teacher:
        raise RunError(f"recipe {recipe_name} takes no teacher: leave --teacher out")
    if recipe.photos_from != "none" and photos is None:
        raise RunError(f"recipe {recipe_name} learns from photos: name their folder with --photos")
    if photos is not None and recipe.photos_from == "none":
        raise RunError(f"recipe {recipe_name} learns from no photos: leave --photos out")


def train(
    config: Config,
    source: Source,
    folder: Path,
    *,
    start_from: Path | None = None,
    weights: Path | None = None,
    photos: Path | None = None,
) -> None:
    """Train a new run in ``folder``.

    ``start_from`` is the folder of the run that it continues or fine-tunes, ``weights`` the file of pretrained ones
    where the architecture takes any, ``photos`` the folder of those that it learns from.

    Raises:
        RunError: The folder exists already, the run to start from has not what is needed of it, or the photos are not
            those of ``config``.
        TrainingError: Pretrained weights are needed and cannot be had.
    """
    if folder.exists():
        raise RunError(
            f"{folder} exists already: finish it with --resume {folder}, or choose another --name"
        )
    config.check_photos(photos)
    keras.utils.set_random_seed(config.seed)
    samples = source.training()
    if start_from is not None and config.recipe.continues:
        model = keras.saving.load_model(_find_checkpoint(start_from)[1])
    else:
        model = _compile(config, samples, weights)
    if start_from is not None and config.recipe.fine_tunes:
        model.set_weights(load_model(start_from).get_weights())
    write_config(folder, config)
    _fit(model, config, samples, folder, 0, photos)


def resume(folder: Path, source: Source, photos: Path | None = None) -> None:
    """Finish an interrupted run from the end of its last whole epoch.

    Raises:
        RunError: The run has ended, there is no checkpoint to resume from, or the photos are not those it began with.
    """
    if (folder / MODEL_FILE).exists():
        raise RunError(f"{folder} has ended already: there is nothing to resume")
    done, checkpoint = _find_checkpoint(folder)
    config = read_config(folder)
    config.check_photos(photos)
    keras.utils.set_random_seed(config.seed)
    _fit(keras.saving.load_model(checkpoint), config, source.training(), folder, done, photos)


def _fit(
    model: Any, config: Config, samples: Samples, folder: Path, done: int, photos: Path | None
) -> None:
    part, validation = config.split(samples)
    class_count = len(config.class_names)
    views = (
        None
        if photos is None
        else make_views(photos, config.recipe.photos_from, part, class_count, config.seed)
    )
    batches = Batches(part, config, views)
    targets = np.eye(class_count, dtype=np.float32)[validation.labels]
    model.fit(
        batches,
        shuffle=False,  # Keras would shuffle the order of the batches by a state that no checkpoint holds
        initial_epoch=done,
        epochs=config.recipe.epochs,
        validation_data=(validation.images[..., None].astype(np.float32), targets),
        validation_batch_size=500,
        callbacks=[Recorder(folder, batches, config)],
    )
    model.save(folder / MODEL_FILE)
    plot_history(folder / "curves.png", read_history(folder), folder.name)


def _compile(config: Config, samples: Samples, weights: Path | None) -> Any:
    keras.config.set_dtype_policy(config.precision)
    model = config.build()
    keras.config.set_dtype_policy("float32")
    load_pretrained = find_architecture(config.architecture).load_pretrained
    if load_pretrained is not None:
        load_pretrained(model, weights)
    steps = len(Batches(config.split(samples)[0], config)) * config.recipe.epochs
    temperature = config.recipe.distillation_temperature
    loss = (
        keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.recipe.label_smoothing
        )
        if temperature is None
        else DistillationLoss(temperature)
    )
    model.compile(
        config.recipe.make_optimizer(steps),
        loss,
        metrics=["accuracy"],
        jit_compile=keras.backend.backend()
        != "tensorflow",  # XLA halved TensorFlow's speed on two CPU cores
    )
    return model


def _find_checkpoint(folder: Path) -> tuple[int, Path]:
    """Find the last checkpoint: (epochs done, file)."""
    found = sorted((int(path.stem), path) for path in (folder / "checkpoints").glob("[0-9]*.keras"))
    if not found:
        raise RunError(
            f"{folder} holds no checkpoint: no epoch of it was finished here, so delete the folder and train again"
        )
    return found[-1]


def _save_checkpoint(folder: Path, model: Any, epochs: int) -> None:
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    unfinished = checkpoints / "unfinished.keras"
    model.save(unfinished)
    unfinished.replace(checkpoints / f"{epochs}.keras")
    (checkpoints / f"{epochs - 1}.keras").unlink(missing_ok=True)
