"""Training in one compiled step of JAX, with all images and their augmentation on the device."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from training.data.samples import Samples
from training.fit.compiled_augmentation import COMPILED_AUGMENTATIONS
from training.fit.losses import make_loss
from training.fit.recipe import Recipe
from training.fit.runs import (
    CONFIG_FILE,
    Config,
    load_model,
    save_checkpoint,
    write_config,
    write_history,
)

Weights = list[jax.Array]

MEASURED_STEPS = 100
VALIDATION_BATCH_SIZE = 500
CHECKPOINT_SECONDS = 60
# The rest of the time is for checkpoints, the final save and steps slower than the measured ones.
PLANNED_SHARE = 0.96


class State(NamedTuple):
    """What a step changes in the network. ``statistics`` are its variables without a gradient."""

    weights: Weights
    statistics: Weights
    velocities: Weights
    average: Weights


class Progress(NamedTuple):
    """The steps of the epoch so far, and the sums of their losses and of the correct answers."""

    step: jax.Array
    loss: jax.Array
    correct: jax.Array


class Epoch(NamedTuple):
    """What differs between epochs.

    These are the order of the images ``[steps, batch]``, the learning rates ``[steps]``, and the
    key of all random numbers except those of dropout.
    """

    order: jax.Array
    rates: jax.Array
    key: jax.Array


class Data(NamedTuple):
    """Images uint8 ``[N, H, W]`` and labels ``[N]`` on the device."""

    images: jax.Array
    labels: jax.Array


class Variables(NamedTuple):
    """The variables of a network, with and without a gradient."""

    weights: Weights
    statistics: Weights


def find_obstacle(config: Config) -> str | None:
    """Name the part of a run that only Keras' fit can train, or return None."""
    recipe = config.recipe
    bundles = [name for name in config.teachers if not (Path(name) / CONFIG_FILE).exists()]
    found = {
        f"optimizer {recipe.optimizer}": recipe.optimizer != "sgd",
        f"augmentation {recipe.augmentation}": recipe.augmentation not in COMPILED_AUGMENTATIONS,
        "a number of steps per epoch": recipe.steps_per_epoch is not None,
        "early stopping": recipe.early_stopping_patience is not None,
        "photos": recipe.photo is not None,
        "the optimizer of an earlier run": recipe.continues,
        f"teacher {', '.join(bundles)}, which is not a run": bool(bundles),
    }
    return next((name for name, is_found in found.items() if is_found), None)


def train_compiled(
    model: Any, config: Config, samples: Samples, folder: Path, minutes: float | None
) -> None:
    """Write configuration, history and checkpoints of a run into its new folder.

    The averaged weights of the last epoch are left in the model. If ``minutes`` are given, the
    measured speed sets the number of epochs, and the configuration records both.

    Raises:
        RunError: A teacher has no weights, or has other classes.
    """
    started = time.monotonic()
    trainer = Trainer(model, config, samples)
    deadline = math.inf
    if minutes is not None:
        deadline = started + 60 * minutes
        config = _plan_epochs(config, trainer.measure(), started, deadline)
    write_config(folder, config)
    trainer.run(config, folder, deadline)


def _plan_epochs(config: Config, epoch_seconds: float, started: float, deadline: float) -> Config:
    """Set the number of epochs that end before the deadline, and note the measured speed."""
    measured = time.monotonic()
    epochs = max(1, int(PLANNED_SHARE * (deadline - measured) / epoch_seconds))
    speed = {
        "minutes": round((deadline - started) / 60, 3),
        "seconds_to_compile_and_measure": round(measured - started, 1),
        "seconds_per_epoch": round(epoch_seconds, 3),
    }
    _tell(f"{epochs} epochs:", speed)
    recipe = dataclasses.replace(config.recipe, epochs=epochs)
    return dataclasses.replace(config, recipe=recipe, made_by={**config.made_by, "speed": speed})


class Trainer:
    """A network with its data on the device, and the compiled step that trains it."""

    def __init__(self, model: Any, config: Config, samples: Samples) -> None:
        part, validation = config.split(samples)
        self._model = model
        self._recipe = config.recipe
        self._class_count = len(config.class_names)
        self._key = jax.random.key(config.seed)
        self._training, self._validation = _put(part), _put(validation)
        self._teachers = [load_model(Path(name), config.precision) for name in config.teachers]
        self._augmentation = COMPILED_AUGMENTATIONS[config.recipe.augmentation]
        self._loss = make_loss(config.recipe)
        self._batch_size = min(config.recipe.batch_size, len(part))
        self._steps = len(part) // self._batch_size
        # A step is compiled alone, because XLA makes convolutions inside a loop (lax.scan) a
        # hundred times slower on CPUs. The loop in Python costs nothing on a GPU: JAX starts the
        # next step while the device still computes.
        self._step = jax.jit(self._train_on_batch, donate_argnums=(0, 1))
        self._answer = jax.jit(self._answer_images)

    def measure(self) -> float:
        """Compile, and return the seconds of one epoch with its validation."""
        epoch = self._shuffle(0, np.zeros(self._steps, np.float32))
        state, _ = self._run_steps(self._start(), epoch, 1)
        self._validate(state)
        count = min(MEASURED_STEPS, self._steps)
        started = time.monotonic()
        state, progress = self._run_steps(state, epoch, count)
        progress.loss.block_until_ready()
        trained = time.monotonic()
        self._validate(state)
        return (trained - started) * self._steps / count + time.monotonic() - trained

    def run(self, config: Config, folder: Path, deadline: float) -> None:
        """Train the epochs of ``config``, or fewer if the deadline passes."""
        epochs = config.recipe.epochs
        rates = _compute_rates(config.recipe, epochs * self._steps).reshape(epochs, self._steps)
        history: list[dict[str, float]] = []
        state, saved = self._start(), time.monotonic()
        for number in range(epochs):
            started = time.monotonic()
            if history and started > deadline:
                _tell(f"the time is up after {number} of {epochs} epochs")
                break
            epoch = self._shuffle(config.earlier_epochs + number, rates[number])
            state, progress = self._run_steps(state, epoch, self._steps)
            row = {"epoch": config.earlier_epochs + number + 1, **self._summarize(progress)}
            row |= {**self._validate(state), "learning_rate": float(rates[number, -1])}
            row["seconds"] = round(time.monotonic() - started, 2)
            history.append(row)
            write_history(folder, history)
            _tell(f"epoch {number + 1}/{epochs}:", row)
            if time.monotonic() > saved + CHECKPOINT_SECONDS:
                self._write_average(state)
                save_checkpoint(folder, self._model, number + 1)
                saved = time.monotonic()
        self._write_average(state)

    def _start(self) -> State:
        """Copy the model's variables, because a step reuses the memory of its arguments."""
        weights, statistics = _get_variables(self._model)
        copied, average = jax.tree.map(jnp.copy, (weights, weights))
        velocities = jax.tree.map(jnp.zeros_like, weights)
        return State(copied, jax.tree.map(jnp.copy, statistics), velocities, average)

    def _shuffle(self, number: int, rates: NDArray[np.float32]) -> Epoch:
        key = jax.random.fold_in(self._key, number)
        order = jax.random.permutation(key, len(self._training.labels))
        batches = order[: self._steps * self._batch_size].reshape(self._steps, self._batch_size)
        return Epoch(batches, jnp.asarray(rates), key)

    def _run_steps(self, state: State, epoch: Epoch, count: int) -> tuple[State, Progress]:
        progress = Progress(jnp.zeros((), int), jnp.zeros(()), jnp.zeros((), int))
        # XLA would compile for minutes if the images and the teachers were constants of the step.
        teachers = [_get_variables(teacher) for teacher in self._teachers]
        for _ in range(count):
            state, progress = self._step(state, progress, epoch, self._training, teachers)
        return state, progress

    def _train_on_batch(
        self,
        state: State,
        progress: Progress,
        epoch: Epoch,
        training: Data,
        teachers: list[Variables],
    ) -> tuple[State, Progress]:
        chosen, rate = epoch.order[progress.step], epoch.rates[progress.step]
        key = jax.random.fold_in(epoch.key, progress.step)
        images, targets = self._augment(key, training.images[chosen], training.labels[chosen])
        if teachers:
            targets = self._ask_teachers(teachers, images)
        compute = jax.value_and_grad(self._compute_loss, has_aux=True)
        (loss, (logits, statistics)), gradients = compute(
            state.weights, state.statistics, images, targets
        )
        weights, velocities = descend(
            self._recipe, rate, state.weights, state.velocities, gradients
        )
        kept = self._recipe.ema_momentum or 0.0
        average = [kept * a + (1 - kept) * w for a, w in zip(state.average, weights, strict=True)]
        correct = (logits.argmax(axis=1) == targets.argmax(axis=1)).sum()
        return State(weights, statistics, velocities, average), Progress(
            progress.step + 1, progress.loss + loss, progress.correct + correct
        )

    def _augment(
        self, key: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the changed images ``[N, H, W, 1]`` and their targets ``[N, classes]``."""
        pixels, targets = images.astype(jnp.float32), jax.nn.one_hot(labels, self._class_count)
        for number, step in enumerate(self._augmentation):
            pixels, targets = step(jax.random.fold_in(key, number), pixels, targets)
        return pixels[..., None], targets

    def _ask_teachers(self, variables: list[Variables], images: jax.Array) -> jax.Array:
        """Return the targets that ``distillation.Teachers`` gives."""
        mirrored = self._recipe.teachers_see_mirrored
        views = [images, images[:, :, ::-1]] if mirrored else [images]
        logits = [
            teacher.stateless_call(*values, view, training=False)[0]
            for teacher, values in zip(self._teachers, variables, strict=True)
            for view in views
        ]
        temperature = self._recipe.distillation_temperature or 1.0
        return jax.nn.softmax(jnp.stack(logits) / temperature).mean(axis=0)

    def _compute_loss(
        self, weights: Weights, statistics: Weights, images: jax.Array, targets: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, Weights]]:
        logits, changed = self._model.stateless_call(weights, statistics, images, training=True)
        return self._loss(targets, logits), (logits, changed)

    def _answer_images(self, weights: Weights, statistics: Weights, images: jax.Array) -> Any:
        pixels = images[..., None].astype(jnp.float32)
        return self._model.stateless_call(weights, statistics, pixels, training=False)[0]

    def _validate(self, state: State) -> dict[str, float]:
        """Measure the averaged weights on the validation images."""
        images, labels = self._validation
        starts = range(0, len(labels), VALIDATION_BATCH_SIZE)
        batches = [images[start : start + VALIDATION_BATCH_SIZE] for start in starts]
        answers = [self._answer(state.average, state.statistics, batch) for batch in batches]
        logits = jnp.concatenate(answers)
        loss = self._loss(jax.nn.one_hot(labels, self._class_count), logits)
        accuracy = (logits.argmax(axis=1) == labels).mean()
        return {"val_accuracy": float(accuracy), "val_loss": float(loss)}

    def _summarize(self, progress: Progress) -> dict[str, float]:
        seen = self._steps * self._batch_size
        return {
            "accuracy": int(progress.correct) / seen,
            "loss": float(progress.loss) / self._steps,
        }

    def _write_average(self, state: State) -> None:
        """Write the averaged weights into the Keras model."""
        variables = (*self._model.trainable_variables, *self._model.non_trainable_variables)
        for variable, value in zip(variables, (*state.average, *state.statistics), strict=True):
            variable.assign(np.asarray(value))


def descend(
    recipe: Recipe, rate: jax.Array, weights: Weights, velocities: Weights, gradients: Weights
) -> tuple[Weights, Weights]:
    """Return the weights and velocities after a step of Keras' SGD.

    Its momentum is Nesterov's. Its weight decay does not enter the velocity.
    """
    decay = 1 - rate * recipe.weight_decay
    pairs = zip(velocities, gradients, strict=True)
    moved = [recipe.momentum * v - rate * g for v, g in pairs]
    triples = zip(weights, moved, gradients, strict=True)
    return [decay * w + recipe.momentum * v - rate * g for w, v, g in triples], moved


def _compute_rates(recipe: Recipe, total_steps: int) -> NDArray[np.float32]:
    """Compute the learning rate of each step of a run."""
    schedule = recipe.make_schedule(total_steps)
    if not callable(schedule):
        return np.full(total_steps, schedule, np.float32)
    return np.asarray(jax.vmap(schedule)(jnp.arange(total_steps)), np.float32)


def _put(samples: Samples) -> Data:
    return Data(jnp.asarray(samples.images), jnp.asarray(samples.labels.astype(np.int32)))


def _get_variables(model: Any) -> Variables:
    return Variables(
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
    )


def _tell(text: str, values: dict[str, float] | None = None) -> None:
    """Print a line at once, so that the log of a run that is cut off is complete."""
    print(text, *(f"{name} {value:.5g}" for name, value in (values or {}).items()), flush=True)
