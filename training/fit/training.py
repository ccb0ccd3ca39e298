"""Training: from samples to a finished run folder.

Everything random in an epoch comes from (seed, epoch, batch) or from state in the checkpoint. So an
interrupted and resumed run ends with the same weights as an uninterrupted run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.architectures import find_architecture
from training.architectures.efficientnet_lite import freeze_before
from training.data.photos.table import hash_files, hash_photos
from training.data.photos.views import make_views
from training.data.samples import Samples, Source
from training.errors import RunError
from training.fit.augmentation import find_augmentation
from training.fit.batches import Batches
from training.fit.distillation import make_loss
from training.fit.photo_batches import PhotoBatches, PossibleClassesLoss, accuracy
from training.fit.photo_training import make_photo_batches
from training.fit.recipe import Recipe
from training.fit.runs import (
    MODEL_FILE,
    Config,
    describe_making,
    find_checkpoint,
    load_model,
    read_config,
    read_history,
    save_checkpoint,
    write_config,
    write_history,
)
from training.plots import plot_history

SERVED_SIZE = (160, 160)  # of photos: see docs/decisions/0017-photos.md


class Recorder(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Write history and checkpoint after each epoch, and stop early if the recipe says so."""

    def __init__(self, folder: Path, batches: Batches | PhotoBatches, config: Config) -> None:
        super().__init__()
        self._folder = folder
        self._batches = batches
        self._seed = config.seed
        self._earlier_epochs = config.earlier_epochs
        self._patience = config.recipe.early_stopping_patience
        self._history = read_history(folder)
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Seed batches and dropout from the number of the epoch, and start the epoch's clock."""
        del logs
        self._batches.epoch = self._earlier_epochs + epoch
        # Keras does not save the state of dropout: a seed and a count of calls. An epoch has fewer
        # than 2**20 calls, so epochs never share a state.
        calls = self._batches.epoch << 20
        for number, layer in enumerate(self.model.layers):
            if isinstance(layer, keras.layers.Dropout):
                layer.seed_generator.state.assign((1000 * self._seed + number, calls))
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the history before the checkpoint, so that a checkpoint marks a finished epoch."""
        row = {"epoch": self._earlier_epochs + epoch + 1, **(logs or {})}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["seconds"] = round(time.monotonic() - self._started, 1)
        self._history = [*self._history[:epoch], row]
        write_history(self._folder, self._history)
        save_checkpoint(self._folder, self.model, epoch + 1)
        losses = [earlier["val_loss"] for earlier in self._history]
        epochs_since_best = len(losses) - 1 - int(np.argmin(losses))
        if self._patience is not None and epochs_since_best >= self._patience:
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
    worn: Path | None = None,
) -> Config:
    """Compose the configuration of a run on ``source``.

    ``start_from`` is the folder of the earlier run, ``teachers`` are folders of runs or bundles,
    and ``photos`` is a folder of labelled photos.

    Raises:
        RunError: An earlier run, teachers or photos are missing, or are given but not used by the
            recipe.
        DataError: The photos cannot be read.
        TrainingError: There is no such architecture or augmentation.
    """
    find_augmentation(recipe.augmentation)
    _check_needs(recipe_name, recipe, start_from, teachers, photos)
    samples = source.training()
    found = find_architecture(architecture)
    model = found.build(samples.input_size, len(source.class_names))
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
        input_size=SERVED_SIZE if found.is_for_photos else samples.input_size,
        parameters=model.count_params(),
        data_source=str(source),
        data_sha256=samples.sha256(),
        earlier_epochs=earlier,
        continued_from=None if start_from is None else start_from.name,
        teachers=tuple(teacher.as_posix() for teacher in teachers),
        photos_sha256=None if photos is None else hash_photos(photos),
        worn_sha256=None if worn is None else hash_files(worn),
        made_by=describe_making(),
    )


def _check_needs(
    recipe_name: str,
    recipe: Recipe,
    start_from: Path | None,
    teachers: Sequence[Path],
    photos: Path | None,
) -> None:
    for is_needed, is_given, if_missing, if_unused in (
        (
            recipe.continues or recipe.fine_tunes,
            start_from is not None,
            "continues another run: pass its folder with --from",
            "starts from a new network: leave --from out",
        ),
        (
            recipe.distillation_temperature is not None,
            bool(teachers),
            "needs a teacher: pass a run or bundle with --teacher",
            "uses no teacher: leave --teacher out",
        ),
        (
            recipe.photos_from != "none" or recipe.photo is not None,
            photos is not None,
            "learns from photos: pass their folder with --photos",
            "learns from no photos: leave --photos out",
        ),
    ):
        if is_needed != is_given:
            raise RunError(f"recipe {recipe_name} {if_missing if is_needed else if_unused}")


def train(
    config: Config,
    source: Source,
    folder: Path,
    *,
    start_from: Path | None = None,
    weights: Path | None = None,
    photos: Path | None = None,
    worn: Path | None = None,
    minutes: float | None = None,
) -> None:
    """Train a new run in ``folder``: in one compiled step on JAX, else with Keras' fit.

    ``start_from`` is the folder of the run to continue or fine-tune. ``weights`` is the file of
    pretrained weights, for architectures that use them. ``photos`` is the folder of the run's
    labelled photos. ``minutes`` replace the recipe's number of epochs.

    Raises:
        RunError: The folder exists already, the run to start from lacks a checkpoint or weights,
            ``config`` was made with other photos, or ``minutes`` are given for a run that only
            Keras' fit can train.
        TrainingError: The pretrained weights cannot be loaded.
    """
    if folder.exists():
        raise RunError(
            f"{folder} exists already: finish it with --resume {folder}, or choose another --name"
        )
    config.check_photos(photos)
    obstacle = _find_obstacle(config)
    if minutes is not None and obstacle is not None:
        raise RunError(
            f"--minutes needs training in one compiled step, which does not support {obstacle}: "
            "use --epochs"
        )
    keras.utils.set_random_seed(config.seed)
    samples = source.training()
    if start_from is not None and config.recipe.continues:
        model = keras.saving.load_model(find_checkpoint(start_from)[1])
    else:
        model = _build(config, weights)
    if start_from is not None and config.recipe.fine_tunes:
        model.set_weights(load_model(start_from).get_weights())
    if obstacle is None:
        from training.fit.compiled_training import train_compiled

        train_compiled(model, config, samples, folder, minutes)
    else:
        if not config.recipe.continues:
            _compile(model, config, samples)
        write_config(folder, config)
        _fit(model, config, samples, folder, 0, photos, worn)
    _finish(model, folder)


def _find_obstacle(config: Config) -> str | None:
    """Say why a run cannot train in one compiled step, or return None."""
    if keras.backend.backend() != "jax":
        return f"KERAS_BACKEND={keras.backend.backend()} (it needs jax)"
    # JAX is an optional package.
    from training.fit.compiled_training import find_obstacle

    return find_obstacle(config)


def resume(
    folder: Path, source: Source, photos: Path | None = None, worn: Path | None = None
) -> None:
    """Finish an interrupted run from its last finished epoch.

    Raises:
        RunError: The run has ended already, has no checkpoint, was started with other photos, or
            trained in one compiled step.
    """
    if (folder / MODEL_FILE).exists():
        raise RunError(f"run {folder} has ended already: there is nothing to resume")
    done, checkpoint = find_checkpoint(folder)
    config = read_config(folder)
    config.check_photos(photos)
    keras.utils.set_random_seed(config.seed)
    model = keras.saving.load_model(checkpoint)
    if not model.compiled:
        raise RunError(
            f"{folder} trained in one compiled step, which keeps no state to resume from: train "
            f"again, or copy {checkpoint} to {folder / MODEL_FILE} to use the weights so far"
        )
    _fit(model, config, source.training(), folder, done, photos, worn)
    _finish(model, folder)


def _fit(
    model: Any,
    config: Config,
    samples: Samples,
    folder: Path,
    done: int,
    photos: Path | None,
    worn: Path | None,
) -> None:
    if config.recipe.photo is not None:
        photo_batches, validation = make_photo_batches(config, photos, worn, samples)
        model.fit(
            photo_batches,
            shuffle=False,
            initial_epoch=done,
            epochs=config.recipe.epochs,
            validation_data=validation,
            validation_batch_size=60,
            callbacks=[Recorder(folder, photo_batches, config)],
        )
        return
    part, validation = config.split(samples)
    class_count = len(config.class_names)
    views = None
    if photos is not None:
        views = make_views(photos, config.recipe.photos_from, part, class_count, config.seed)
    batches = Batches(part, config, views)
    targets = np.eye(class_count, dtype=np.float32)[validation.labels]
    model.fit(
        batches,
        shuffle=False,  # checkpoints lack the state by which Keras shuffles
        initial_epoch=done,
        epochs=config.recipe.epochs,
        validation_data=(validation.images[..., None].astype(np.float32), targets),
        validation_batch_size=500,
        callbacks=[Recorder(folder, batches, config)],
    )


def _finish(model: Any, folder: Path) -> None:
    model.save(folder / MODEL_FILE)
    plot_history(folder / "curves.png", read_history(folder), folder.name)


def _build(config: Config, weights: Path | None) -> Any:
    model = config.build(config.precision)
    load_pretrained = find_architecture(config.architecture).load_pretrained
    if load_pretrained is not None:
        load_pretrained(model, weights)
    if config.recipe.photo is not None:
        freeze_before(model, config.recipe.photo.first_trained_block)
    return model


def _compile(model: Any, config: Config, samples: Samples) -> None:
    if config.recipe.photo is not None:
        optimizer = config.recipe.make_optimizer(
            (config.recipe.steps_per_epoch or 0) * config.recipe.epochs
        )
        loss = PossibleClassesLoss(config.recipe.label_smoothing)
        model.compile(optimizer, loss, metrics=[accuracy], jit_compile=False)
        return
    steps = len(Batches(config.split(samples)[0], config)) * config.recipe.epochs
    model.compile(
        config.recipe.make_optimizer(steps),
        make_loss(config.recipe),
        metrics=["accuracy"],
        # XLA halved TensorFlow's speed on two CPU cores.
        jit_compile=keras.backend.backend() != "tensorflow",
    )
