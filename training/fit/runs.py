"""The run folder: the configuration of a run, and its results.

``runs/NAME/`` holds

- ``config.json``: a ``Config``
- ``places.json``: where the images lie on this machine (not in git)
- ``history.csv``: one row for each epoch
- ``model.keras``: the weights after the last epoch (not in git)
- ``found.csv``: worn garments found in photos without masks (not in git)
- ``checkpoints/``: the last checkpoint, to resume or continue the run (not in git)
- ``calibration.npz``: from ``calibrate`` (not in git)
- ``metrics.json`` and plots: from ``evaluate`` (the plots are not in git)
- ``test-openings.csv``: when and why the test set was opened for this run
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras

from service.imaging.item_on_black import ITEM_ON_BLACK
from service.imaging.letterbox import LETTERBOX
from service.imaging.model_input import InputSpec
from training.architectures import find_architecture
from training.data.photos.collection import PhotoFolders
from training.data.samples import Samples
from training.errors import RunError
from training.fit.recipe import Recipe, read_recipe

CONFIG_FILE = "config.json"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
MODEL_FILE = "model.keras"
OPENINGS_FILE = "test-openings.csv"


@dataclass(frozen=True)
class Config:
    """The settings of a run and how it was made. They are enough to repeat the run."""

    name: str
    architecture: str
    recipe_name: str
    recipe: Recipe
    seed: int
    precision: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    parameters: int
    data_source: str
    data_sha256: str
    earlier_epochs: int = 0
    continued_from: str | None = None
    teachers: tuple[str, ...] = ()
    photos_sha256: str | None = None
    is_averaged: bool = False
    """Whether the weights are the mean of those after training and of the earlier run's."""
    made_by: dict[str, Any] = field(default_factory=dict)

    @property
    def input_spec(self) -> InputSpec:
        """The inputs of this run's network: grey images, or photos."""
        rule = ITEM_ON_BLACK if self.recipe.photo is None else LETTERBOX
        return InputSpec(rule, self.input_size)

    def build(self, precision: str = "float32") -> Any:
        """Build the network of this run with fresh weights, to compute in ``precision``."""
        keras.config.set_dtype_policy(precision)
        try:
            architecture = find_architecture(self.architecture)
            return architecture.build(self.input_size, len(self.class_names))
        finally:
            keras.config.set_dtype_policy("float32")

    def check_photos(self, photos: PhotoFolders | None) -> None:
        """Check that ``photos`` are the folders that this run learns from, None if it uses none.

        Raises:
            RunError: The photos are missing, are not needed, or differ from the run's photos.
        """
        if photos is None and self.photos_sha256 is not None:
            raise RunError(
                f"run {self.name} learns from photos: pass their folders with --photos and --worn"
            )
        if photos is not None and self.photos_sha256 is None:
            raise RunError(f"run {self.name} learns from no photos: leave --photos and --worn out")
        if photos is not None and self.photos_sha256 != photos.hash():
            raise RunError(
                f"run {self.name} learns from other photos than those in {photos.photos} and "
                f"{photos.worn}: pass the run's own folders with --photos and --worn"
            )

    def split(self, samples: Samples) -> tuple[Samples, Samples]:
        """Split the training set into the training and the validation part of the recipe.

        Raises:
            RunError: The run was made with other samples.
        """
        if samples.sha256() != self.data_sha256:
            raise RunError(
                f"this training data has sha256 {samples.sha256()}, but run {self.name} used "
                f"{self.data_sha256}: pass the run's own data with --data"
            )
        return samples.split(self.recipe.validation_fraction, self.recipe.split_seed)


def write_config(folder: Path, config: Config) -> None:
    """Write ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(
        json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8"
    )


def read_config(folder: Path) -> Config:
    """Read ``config.json``.

    Raises:
        RunError: The folder is not a run.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        values["recipe"] = read_recipe(values["recipe"])
        values.setdefault("teachers", ())
        for name in ("class_names", "input_size", "teachers"):
            values[name] = tuple(values[name])
        return Config(**values)
    except OSError as error:
        raise RunError(
            f"{folder} is not a run: {CONFIG_FILE} cannot be read ({error.strerror})"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / CONFIG_FILE} does not describe a run: {error!r}") from error


def read_history(folder: Path) -> list[dict[str, float]]:
    """Read ``history.csv``: one dict for each finished epoch.

    Raises:
        RunError: The file is damaged.
    """
    path = folder / HISTORY_FILE
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise ValueError("it has no row")
        return [{name: float(value) for name, value in row.items()} for row in rows]
    except (ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}): copy it again, or train again") from error


def write_history(folder: Path, history: list[dict[str, float]]) -> None:
    """Write ``history.csv``."""
    with (folder / HISTORY_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, history[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the figures that ``evaluate`` measured.

    Raises:
        RunError: The run was not evaluated, or the file is damaged.
    """
    try:
        metrics: dict[str, Any] = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{folder} was not evaluated: run `python -m training evaluate {folder}` first"
        ) from error
    except ValueError as error:
        raise RunError(f"{folder / METRICS_FILE} is damaged ({error}): copy it again") from error
    return metrics


def log_opening(folder: Path, purpose: str) -> None:
    """Log in the run's folder that the test set is opened for this run, and why."""
    path = folder / OPENINGS_FILE
    new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write("time,purpose,git_commit\n" if new else "")
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')},{purpose},{git_commit()}\n")


def load_model(folder: Path, precision: str = "float32") -> Any:
    """Build the network of a finished run, to compute in ``precision``, and load its last weights.

    Raises:
        RunError: The run has not ended, or its weights are not on this machine or are damaged.
    """
    path = folder / MODEL_FILE
    if not path.exists():
        raise RunError(f"{path} is missing: finish the run, or copy its weights to this machine")
    model = read_config(folder).build(precision)
    with _naming_damage(path):
        model.load_weights(path)
    return model


def load_checkpoint(path: Path) -> Any:
    """Load a checkpoint, with the state of its optimizer.

    Raises:
        RunError: The file is damaged.
    """
    with _naming_damage(path):
        return keras.saving.load_model(path)


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise RunError(
            f"{path} is damaged, or is of another network: copy it again, or train again ({error})"
        ) from error


def find_checkpoint(folder: Path) -> tuple[int, Path]:
    """Find the last checkpoint and return (finished epochs, file).

    Raises:
        RunError: There is no checkpoint.
    """
    found = sorted((int(path.stem), path) for path in (folder / "checkpoints").glob("[0-9]*.keras"))
    if not found:
        raise RunError(
            f"{folder} holds no checkpoint, because no epoch was finished on this machine: "
            "train the run again under another --name"
        )
    return found[-1]


def save_checkpoint(folder: Path, model: Any, epochs: int) -> None:
    """Save a model after its number of ``epochs`` in place of the earlier checkpoint."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    unfinished = checkpoints / "unfinished.keras"
    model.save(unfinished)
    earlier = list(checkpoints.glob("[0-9]*.keras"))
    unfinished.replace(checkpoints / f"{epochs}.keras")
    for path in earlier:
        path.unlink(missing_ok=True)


def describe_making() -> dict[str, Any]:
    """Describe the code, the libraries and the machine that a run uses."""
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("keras", keras.backend.backend(), "numpy")},
        "keras_backend": keras.backend.backend(),
        "machine": processor(),
    }


def git_commit() -> str:
    """Return the commit of the code, followed by ``-dirty`` if training has uncommitted changes."""
    try:
        commit = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no", "training")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changes else commit


def _git(*words: str) -> str:
    command = ["git", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - fixed
    return done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def processor() -> str:
    """Name the processor's model, from /proc/cpuinfo or ``platform``, and its number of cores.

    A GPU that JAX uses is named first.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = next(iter(models), "") or platform.processor() or platform.machine()
    return f"{_name_gpu()}{model}, {os.cpu_count()} cores"


def _name_gpu() -> str:
    if keras.backend.backend() != "jax":
        return ""
    import jax  # an optional package

    device = jax.devices()[0]
    return "" if device.platform == "cpu" else f"{device.device_kind}, "
