"""Distillation: the targets that teachers give, and the loss of the student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bundle import MANIFEST_FILE, read_bundle
from training.data.samples import Images
from training.errors import RunError
from training.fit.answers import Probabilities, predict, run_graph
from training.fit.runs import Config, load_model, read_config


class Teachers:
    """Runs or bundles whose probabilities, softened and averaged, are a student's targets.

    The method is from Hinton et al. 2015. Teachers get the same augmented images as the student
    (Beyer et al. 2022).
    """

    def __init__(
        self,
        folders: Sequence[Path],
        class_names: tuple[str, ...],
        temperature: float,
        mirrored: bool = False,
    ) -> None:
        """Load the teachers. If ``mirrored``, they average over the image and its mirror image.

        Raises:
            RunError, BundleError: A teacher cannot be loaded, or has other classes.
        """
        self._teachers = [_load(folder, class_names) for folder in folders]
        self._temperature = temperature
        self._mirrored = mirrored

    def answer(self, images: NDArray[np.float32]) -> Probabilities:
        """Return the targets ``[N, classes]`` of images ``[N, H, W]`` in 0..255."""
        pixels = images.round().clip(0, 255).astype(np.uint8)
        views = [pixels, pixels[:, :, ::-1]] if self._mirrored else [pixels]
        answers = [teacher(view) for teacher in self._teachers for view in views]
        softened = [probabilities ** (1 / self._temperature) for probabilities in answers]
        normalised = [powers / powers.sum(axis=1, keepdims=True) for powers in softened]
        return np.asarray(np.mean(normalised, axis=0), np.float32)


def load_teachers(config: Config) -> Teachers | None:
    """Load the teachers of a run, or return None if it has none.

    Raises:
        RunError, BundleError: See ``Teachers``.
    """
    temperature = config.recipe.distillation_temperature
    if temperature is None:
        return None
    folders = [Path(folder) for folder in config.teachers]
    mirrored = config.recipe.teachers_see_mirrored
    return Teachers(folders, config.class_names, temperature, mirrored)


def _load(folder: Path, class_names: tuple[str, ...]) -> Callable[[Images], Probabilities]:
    load = _load_bundle if (folder / MANIFEST_FILE).exists() else _load_run
    teacher, known = load(folder)
    check_teacher(folder, known, class_names)
    return teacher


def check_teacher(folder: Path, known: tuple[str, ...], class_names: tuple[str, ...]) -> None:
    """Check that a teacher knows the classes of the data.

    Raises:
        RunError: The teacher has other classes.
    """
    if known != class_names:
        raise RunError(
            f"teacher {folder} has the classes {', '.join(known)}, but the data has the classes "
            f"{', '.join(class_names)}: choose a teacher with the same classes"
        )


def _load_bundle(folder: Path) -> tuple[Callable[[Images], Probabilities], tuple[str, ...]]:
    bundle = read_bundle(folder)
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    return lambda images: run_graph(session, images, 500).probabilities, bundle.manifest.class_names


def _load_run(folder: Path) -> tuple[Callable[[Images], Probabilities], tuple[str, ...]]:
    model = load_model(folder)
    return lambda images: predict(model, images), read_config(folder).class_names
