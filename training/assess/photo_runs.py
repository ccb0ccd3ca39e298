"""Calibration and evaluation of a network for photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from service.bundle import PredictionSets
from service.imaging.letterbox import fit_into_box
from training.architectures.efficientnet_lite import split_outputs
from training.assess.calibration import (
    COVERAGES,
    Calibration,
    check_uncalibrated,
    fit_prediction_sets,
    fit_temperature,
    load_calibrated,
    load_calibration,
    write_calibration,
)
from training.assess.evaluation import check_unopened, measure
from training.assess.uncertainty import measure_prediction_sets
from training.data.photos.collection import Collection, PhotoFolders, open_collection
from training.data.photos.inputs import to_inputs
from training.data.samples import Images, Labels, Source
from training.errors import RunError
from training.fit.answers import Probabilities, answer
from training.fit.recipe import VALIDATION_UPLOADS
from training.fit.runs import METRICS_FILE, Config, load_model, log_opening

KNOWN_SHARE = 0.97  # the share of validation photos and worn items that the threshold accepts


def calibrate_photo_run(run: Path, source: Source, folders: PhotoFolders) -> Calibration:
    """Fit the calibration of a finished run to its validation pictures; write it into its folder.

    Raises:
        RunError: The run has not ended, learned from other photos, or was evaluated already.
        DataError: The photos cannot be read.
    """
    config = check_uncalibrated(run)
    images, labels = stack_validation(config, source, folders)
    outputs = split_outputs(load_model(run), temperature=1.0).predict(
        images.astype(np.float32), batch_size=60, verbose=0
    )
    temperature = fit_temperature(outputs["logits"], labels)
    probabilities = softmax(outputs["logits"] / temperature, axis=1)
    calibration = Calibration(
        temperature=temperature,
        space=None,
        # Nearly all uploads are nearer than that. They come last.
        threshold=float(np.quantile(outputs["distance"][: -_count_uploads(config)], KNOWN_SHARE)),
        augmentation="none",
        minimum_probabilities=fit_prediction_sets(probabilities, labels),
    )
    write_calibration(run, calibration)
    return calibration


def evaluate_photo_run(run: Path, source: Source, folders: PhotoFolders) -> dict[str, Any]:
    """Measure a calibrated run once on the data set's test images; write ``metrics.json``.

    The prediction sets are measured on validation pictures in two halves: each half is measured
    with thresholds that were fitted to the other half.

    Raises:
        RunError: The run was evaluated before, has not ended, was not calibrated, or learned from
            other photos.
        DataError: The photos cannot be read.
    """
    config, model = check_unopened(run), load_calibrated(run)
    if load_calibration(run) is None:
        raise RunError(f"{run} was not calibrated: run `python -m training calibrate {run}` first")
    images, labels = stack_validation(config, source, folders)
    validated = answer(model, images)
    log_opening(run, "evaluation")
    test = source.test()
    tested = answer(model, to_inputs(test.images, config.input_spec))
    names = config.class_names
    metrics = {
        "test": measure(tested.probabilities, test.labels, names),
        "validation": measure(validated.probabilities, labels, names),
        "prediction_sets": _measure_sets_in_halves(validated.probabilities, labels, names),
    }
    (run / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics


def stack_validation(
    config: Config, source: Source, folders: PhotoFolders
) -> tuple[Images, Labels]:
    """Stack the validation pictures of one class as inputs ``[N, H, W, 3]``, with their labels.

    These are the photos and the worn items that were kept back. Uploads follow, made of the
    validation images of ``source``.

    Raises:
        RunError: The run learned from other photos or data.
        DataError: The photos cannot be read.
    """
    config.check_photos(folders)
    _, samples = config.split(source.training())
    kept_back = open_collection(folders, samples, validation=True)
    return stack_one_class(kept_back, config.input_size, _count_uploads(config))


def _count_uploads(config: Config) -> int:
    assert config.recipe.photo is not None  # noqa: S101  only such runs are calibrated here
    return config.recipe.photo.validation_uploads


def stack_one_class(
    kept_back: Collection, size: tuple[int, int], uploads: int = VALIDATION_UPLOADS
) -> tuple[Images, Labels]:
    """Stack the pictures of one class as inputs ``[N, *size, 3]``; the last are ``uploads``."""
    made = kept_back.uploads.draw_many(uploads)
    pictures = [
        each for each in (*kept_back.photos, *kept_back.worn, *made) if len(each.classes) == 1
    ]
    images = [fit_into_box(each.picture, size) for each in pictures]
    return np.stack(images), np.array([each.classes[0] for each in pictures])


def _measure_sets_in_halves(
    probabilities: Probabilities, labels: Labels, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Measure the sets of every second picture with thresholds fitted to the others."""
    is_even = np.arange(len(labels)) % 2 == 0
    halves = [
        measure_prediction_sets(
            probabilities[measured],
            labels[measured],
            PredictionSets(
                coverages=COVERAGES,
                minimum_probabilities=fit_prediction_sets(
                    probabilities[~measured], labels[~measured]
                ).tolist(),
            ),
            class_names,
        )
        for measured in (is_even, ~is_even)
    ]
    averaged: dict[str, Any] = _average(halves)
    return averaged


def _average(figures: list[Any]) -> Any:
    """Average numbers, and dicts of numbers by key."""
    first = figures[0]
    if isinstance(first, dict):
        return {key: _average([each[key] for each in figures]) for key in first}
    return sum(figures) / len(figures)
