"""Training: from samples to a finished run folder.

Everything random in an epoch comes from (seed, epoch, batch) or from state in the checkpoint. So an
interrupted and resumed run ends with the same weights as an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.architectures import find_architecture
from training.architectures.efficientnet_lite import freeze_before
from training.data.photos.collection import PhotoFolders
from training.data.photos.found import FOUND_FILE, FoundItem, read_found, write_found
from training.data.samples import Samples, Source
from training.data.sources.idx import CLASS_NAMES
from training.errors import RunError
from training.fit.augmentation import find_augmentation
from training.fit.batches import Batches
from training.fit.distillation import check_teacher
from training.fit.finder import find_items
from training.fit.losses import accuracy, make_loss
from training.fit.photo_batches import PhotoBatch, PhotoBatches, make_photo_batches
from training.fit.places import write_places
from training.fit.recipe import Recipe
from training.fit.recorder import Recorder
from training.fit.runs import (
    MODEL_FILE,
    Config,
    describe_making,
    find_checkpoint,
    load_checkpoint,
    load_model,
    read_config,
    read_history,
    write_config,
    write_history,
)
from training.plots import plot_history

Material = tuple[Batches | PhotoBatches, PhotoBatch]
"""What a run learns from: the batches of training, and the images and targets of validation."""


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
    photos: PhotoFolders | None = None,
) -> Config:
    """Compose the configuration of a run on ``source``.

    ``start_from`` is the folder of the earlier run. ``teachers`` are folders of runs or bundles.

    Raises:
        RunError: An earlier run, teachers or photos are missing, or are given but not used by the
            recipe; or the network, the recipe, the data and the earlier run do not fit.
        DataError: The photos cannot be read.
        TrainingError: There is no such architecture or augmentation.
    """
    find_augmentation(recipe.augmentation)
    _check_needs(recipe_name, recipe, start_from, teachers, photos)
    network = find_architecture(architecture)
    if network.is_for_photos != (recipe.photo is not None):
        kinds = "photos", "images of the data set"
        fits = kinds if network.is_for_photos else kinds[::-1]
        raise RunError(
            f"{architecture} learns from {fits[0]}, and recipe {recipe_name} from {fits[1]}: "
            "choose another recipe"
        )
    if recipe.photo is not None and source.class_names != CLASS_NAMES:
        raise RunError(f"recipe {recipe_name} knows the classes of Fashion-MNIST only")
    samples = source.training()
    for teacher in teachers:
        check_teacher(teacher, source.class_names, samples.input_size)
    input_size = recipe.input_size or samples.input_size
    model = network.build(input_size, len(source.class_names))
    config = Config(
        name=name,
        architecture=architecture,
        recipe_name=recipe_name,
        recipe=recipe,
        seed=seed,
        precision=precision,
        class_names=source.class_names,
        input_size=input_size,
        parameters=model.count_params(),
        data_source=str(source),
        data_sha256=samples.sha256(),
        earlier_epochs=0,
        continued_from=None if start_from is None else start_from.name,
        teachers=tuple(teacher.as_posix() for teacher in teachers),
        photos_sha256=None if photos is None else photos.hash(),
        made_by=describe_making(),
    )
    return config if start_from is None else _follow(config, start_from)


def _follow(config: Config, start_from: Path) -> Config:
    """Count the epochs of the earlier run; check that it fits.

    With other data, images of the new test set might have trained the earlier run. The weights of
    a network for photos fit every input size.
    """
    earlier = read_config(start_from)
    for what, ours, theirs in (
        ("network", config.architecture, earlier.architecture),
        ("classes", config.class_names, earlier.class_names),
        ("sha256 of the data", config.data_sha256, earlier.data_sha256),
        ("split of the data", _name_split(config.recipe), _name_split(earlier.recipe)),
    ):
        if ours != theirs:
            raise RunError(
                f"{start_from} has another {what} than this run ({theirs}, not {ours}): "
                "start from a run that fits"
            )
    done = earlier.earlier_epochs + len(read_history(start_from))
    return replace(config, earlier_epochs=done)


def _name_split(recipe: Recipe) -> str:
    return f"{recipe.validation_fraction:.2%} with seed {recipe.split_seed}"


def _check_needs(
    recipe_name: str,
    recipe: Recipe,
    start_from: Path | None,
    teachers: Sequence[Path],
    photos: PhotoFolders | None,
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
            recipe.photo is not None,
            photos is not None,
            "learns from photos: pass their folders with --photos and --worn",
            "learns from no photos: leave --photos and --worn out",
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
    photos: PhotoFolders | None = None,
    minutes: float | None = None,
) -> None:
    """Train a new run in ``folder``: in one compiled step on JAX, else with Keras' fit.

    ``start_from`` is the folder of the run to continue or fine-tune. ``weights`` is the file of
    pretrained weights, for architectures that use them. ``minutes`` replace the recipe's number of
    epochs.

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
        model = load_checkpoint(find_checkpoint(start_from)[1])
    else:
        model = _build(config, weights)
    if start_from is not None and config.recipe.fine_tunes:
        model.set_weights(load_model(start_from).get_weights())
    if obstacle is None:
        from training.fit.compiled_training import train_compiled

        train_compiled(model, config, samples, folder, minutes)
        write_places(folder, source, photos)
    else:
        if not config.recipe.continues:
            _compile(model, config, samples)
        material = _prepare(config, samples, photos)
        found = _find_items(model, config, photos)
        write_config(folder, config)  # only now: a mistake does not take the run's name
        write_places(folder, source, photos)
        if photos is not None:
            write_found(folder / FOUND_FILE, photos.worn, found)
        _fit(model, config, material, found, folder, 0)
    _finish(model, folder)


def _find_obstacle(config: Config) -> str | None:
    """Say why a run cannot train in one compiled step, or return None."""
    if keras.backend.backend() != "jax":
        return f"KERAS_BACKEND={keras.backend.backend()} (it needs jax)"
    # JAX is an optional package.
    from training.fit.compiled_training import find_obstacle

    return find_obstacle(config)


def resume(folder: Path, source: Source, photos: PhotoFolders | None = None) -> None:
    """Finish an interrupted run from its last finished epoch.

    Raises:
        RunError: The run has ended already, has no checkpoint, was started with other photos, or
            trained in one compiled step; or a file of the run is missing or damaged.
    """
    if (folder / MODEL_FILE).exists():
        raise RunError(f"run {folder} has ended already: there is nothing to resume")
    done, checkpoint = find_checkpoint(folder)
    config = read_config(folder)
    config.check_photos(photos)
    keras.utils.set_random_seed(config.seed)
    model = load_checkpoint(checkpoint)
    if not model.compiled:
        raise RunError(
            f"{folder} trained in one compiled step, which keeps no state to resume from: train "
            f"again, or copy {checkpoint} to {folder / MODEL_FILE} to use the weights so far"
        )
    found = [] if photos is None else read_found(folder / FOUND_FILE, photos.worn)
    _fit(model, config, _prepare(config, source.training(), photos), found, folder, done)
    _finish(model, folder)


def _find_items(model: Any, config: Config, photos: PhotoFolders | None) -> list[FoundItem]:
    """Find worn garments with a network that has learned from photos before, else find none."""
    if photos is None or not config.recipe.fine_tunes:
        return []
    return find_items(model, photos.worn, config.input_size)


def _prepare(config: Config, samples: Samples, photos: PhotoFolders | None) -> Material:
    """Return the batches of training, and the images and targets of validation."""
    if photos is not None:
        return make_photo_batches(config, photos, samples)
    part, validation = config.split(samples)
    targets = np.eye(len(config.class_names), dtype=np.float32)[validation.labels]
    return Batches(part, config), (validation.images[..., None].astype(np.float32), targets)


def _fit(
    model: Any,
    config: Config,
    material: Material,
    found: Sequence[FoundItem],
    folder: Path,
    done: int,
) -> None:
    batches, validated = material
    if isinstance(batches, PhotoBatches):
        batches.add_found(found)
    batch_size = 500 if config.recipe.photo is None else 60
    model.fit(
        batches,
        shuffle=False,  # checkpoints lack the state by which Keras shuffles
        initial_epoch=done,
        epochs=config.recipe.epochs,
        validation_data=validated,
        validation_batch_size=batch_size,
        callbacks=[Recorder(folder, batches, config)],
    )
    if config.recipe.ema_momentum is not None:
        # Now the weights are the average; the epochs were validated without it.
        measured = model.evaluate(*validated, batch_size=batch_size, verbose=0, return_dict=True)
        *history, last = read_history(folder)
        last |= {f"val_{name}": value for name, value in measured.items()}
        write_history(folder, [*history, last])


def _finish(model: Any, folder: Path) -> None:
    unfinished = folder / f"unfinished-{MODEL_FILE}"
    model.save(unfinished)
    unfinished.replace(folder / MODEL_FILE)
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
    recipe = config.recipe
    if recipe.photo is None:
        steps, metric = len(Batches(config.split(samples)[0], config)), "accuracy"
    else:
        steps, metric = recipe.photo.steps_per_epoch, accuracy
    model.compile(
        recipe.make_optimizer(steps * recipe.epochs),
        make_loss(recipe),
        metrics=[metric],
        # XLA halved TensorFlow's speed on two CPU cores.
        jit_compile=keras.backend.backend() != "tensorflow",
    )
