"""Distillation: the targets that teachers give, and the loss of the student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.bundle import is_bundle, read_bundle
from service.imaging.model_input import InputSpec
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
        temperature: float,
        mirrored: bool = False,
    ) -> None:
        """Load the teachers. If ``mirrored``, they average over the image and its mirror image.

        Raises:
            RunError, BundleError: A teacher cannot be loaded.
        """
        self._teachers = [_load(folder) for folder in folders]
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
    return Teachers(folders, temperature, mirrored)


def check_teacher(folder: Path, class_names: tuple[str, ...], input_size: tuple[int, int]) -> None:
    """Check that a teacher answers images of the data set, of ``input_size`` in pixels.

    Raises:
        RunError, BundleError: It is no run or bundle, has other classes, or takes other images.
    """
    if is_bundle(folder):
        manifest = read_bundle(folder).manifest
        known, spec = manifest.class_names, InputSpec(manifest.preprocessing, manifest.input_size)
    else:
        config = read_config(folder)
        known, spec = config.class_names, config.input_spec
    if known != class_names:
        raise RunError(
            f"teacher {folder} has the classes {', '.join(known)}, but the data has the classes "
            f"{', '.join(class_names)}: choose a teacher with the same classes"
        )
    if spec.shape != input_size:
        raise RunError(
            f"teacher {folder} takes inputs of the shape {spec.shape}, but the images of the data "
            f"have the shape {input_size}: choose a teacher for such images"
        )


def _load(folder: Path) -> Callable[[Images], Probabilities]:
    if not is_bundle(folder):
        model = load_model(folder)
        return lambda images: predict(model, images)
    bundle = read_bundle(folder)
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    return lambda images: run_graph(session, images, 500).probabilities
