"""Evaluation: the figures of a run or a bundle on the test set and on validation.

No choice is based on the test figures: choices are made on validation, before the test set is
opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss

from service.bundle import PredictionSets, read_bundle
from service.imaging.letterbox import LETTERBOX
from training.assess.calibration import load_calibrated, load_calibration
from training.assess.corruptions import CORRUPTIONS, corrupt
from training.assess.outliers import make_outliers
from training.assess.uncertainty import measure_distances, measure_prediction_sets
from training.data.samples import Images, Labels, Samples, Source
from training.errors import RunError
from training.fit.answers import Answers, Probabilities, answer, run_graph
from training.fit.runs import METRICS_FILE, Config, log_opening, read_config
from training.plots import plot_confusion, plot_reliability, plot_sheet

CALIBRATION_BINS = 15
MISTAKES_SHOWN = 40
SEED = 1  # fixed, so that every model is measured on the same corruptions and outliers


@dataclass(frozen=True)
class Measured:
    """The model to measure, from a run or a bundle, with the results of its calibration."""

    answer: Callable[[Images], Answers]
    class_names: tuple[str, ...]
    distance_threshold: float | None
    prediction_sets: PredictionSets | None


def evaluate(folder: Path, source: Source) -> dict[str, Any]:
    """Measure a finished run once; write ``metrics.json`` and plots into its folder.

    Raises:
        RunError: The run was evaluated before, has not ended, or was made with other data.
    """
    config = check_unopened(folder)
    if config.recipe.photo is not None:
        raise RunError(f"{folder} learned from photos: pass their folders with --photos and --worn")
    model, calibration = load_calibrated(folder), load_calibration(folder)
    _, validation = config.split(source.training())
    measured = Measured(
        lambda images: answer(model, images),
        config.class_names,
        None if calibration is None else calibration.threshold,
        None if calibration is None else calibration.prediction_sets,
    )
    log_opening(folder, "evaluation")
    return _measure_and_write(folder, measured, source.test(), validation)


def check_unopened(folder: Path) -> Config:
    """Read a run's configuration, and check that the test set was not opened for the run.

    Raises:
        RunError: The run was evaluated before.
    """
    if (folder / METRICS_FILE).exists():
        raise RunError(f"{folder} was evaluated already: the test set is opened once for each run")
    return read_config(folder)


def evaluate_bundle(folder: Path, source: Source, output: Path) -> dict[str, Any]:
    """Measure a published bundle on ONNX Runtime; write ``metrics.json`` and plots to ``output``.

    Raises:
        BundleError: The bundle is damaged.
        RunError: ``output`` holds measurements already, the bundle is for photos, or it was made
            with other data.
    """
    if (output / METRICS_FILE).exists():
        raise RunError(f"{output} holds measurements already: choose another --output")
    bundle = read_bundle(folder)
    if bundle.manifest.preprocessing == LETTERBOX:
        raise RunError(f"{folder} is for photos: measure it with `python -m training photos`")
    manifest, training = bundle.manifest, source.training()
    if training.sha256() != manifest.data_sha256:
        raise RunError(
            f"this training data has sha256 {training.sha256()}, but {folder} was made with "
            f"{manifest.data_sha256}: pass the bundle's own data with --data"
        )
    recipe = manifest.training["recipe"]
    _, validation = training.split(recipe["validation_fraction"], recipe["split_seed"])
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    measured = Measured(
        lambda images: run_graph(session, images, 500),
        manifest.class_names,
        manifest.distance_threshold,
        manifest.prediction_sets,
    )
    output.mkdir(parents=True, exist_ok=True)
    return _measure_and_write(output, measured, source.test(), validation)


def _measure_and_write(
    folder: Path, measured: Measured, test: Samples, validation: Samples
) -> dict[str, Any]:
    """Measure a model on the test set and on validation; write ``metrics.json`` and plots."""
    names, answers = measured.class_names, measured.answer(test.images)
    validated = measured.answer(validation.images).probabilities
    metrics = {
        "test": measure(answers.probabilities, test.labels, names),
        "test_with_flips": {"accuracy": _accuracy_with_flips(measured, answers, test)},
        "validation": measure(validated, validation.labels, names),
        "corruptions": _measure_corruptions(measured, test),
    }
    if measured.prediction_sets is not None:
        metrics["prediction_sets"] = measure_prediction_sets(
            answers.probabilities, test.labels, measured.prediction_sets, names
        )
    if measured.distance_threshold is not None:
        metrics["distance"] = _measure_rejections(
            measured, measured.distance_threshold, answers, test
        )
    _plot(folder, metrics["test"], answers.probabilities, test, names)
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics


def _accuracy_with_flips(measured: Measured, answers: Answers, test: Samples) -> float:
    """Measure the accuracy if the answers to an image and to its mirror image are averaged."""
    flipped = measured.answer(test.images[:, :, ::-1])
    summed = answers.probabilities + flipped.probabilities
    return float(accuracy_score(test.labels, summed.argmax(axis=1)))


def _measure_corruptions(measured: Measured, test: Samples) -> dict[str, float]:
    accuracies = {}
    for name in CORRUPTIONS:
        answers = measured.answer(corrupt(test.images, name, SEED))
        predicted = answers.probabilities.argmax(axis=1)
        accuracies[name] = float(accuracy_score(test.labels, predicted))
    return accuracies


def _measure_rejections(
    measured: Measured, threshold: float, answers: Answers, test: Samples
) -> dict[str, Any]:
    """Measure which shares of test images and outliers are rejected."""
    kinds = make_outliers(test.images, SEED)
    outliers = {kind: measured.answer(images).distances for kind, images in kinds.items()}
    return measure_distances(
        answers.distances, test.labels, outliers, threshold, measured.class_names
    )


def _plot(
    folder: Path,
    figures: dict[str, Any],
    probabilities: Probabilities,
    test: Samples,
    class_names: tuple[str, ...],
) -> None:
    """Draw the confusion matrix, the reliability diagram and the most confident mistakes."""
    plot_confusion(folder / "confusion.png", figures["confusion_matrix"], class_names)
    error = figures["expected_calibration_error"]
    plot_reliability(folder / "reliability.png", figures["reliability"], error)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    mistakes = np.flatnonzero(predicted != test.labels)
    order = np.argsort(-confidence[mistakes], kind="stable")
    worst = mistakes[order][:MISTAKES_SHOWN]
    captions = [
        f"{class_names[test.labels[i]]}\nas {class_names[predicted[i]]} {confidence[i]:.0%}"
        for i in worst
    ]
    plot_sheet(folder / "mistakes.png", test.images[worst], captions)


def measure(
    probabilities: Probabilities, labels: Labels, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Measure probabilities ``[N, classes]`` against the true labels ``[N]``."""
    predicted = probabilities.argmax(axis=1)
    known = list(range(len(class_names)))
    correct = int((predicted == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    report = classification_report(
        labels, predicted, labels=known, target_names=class_names, output_dict=True, zero_division=0
    )
    return {
        "count": len(labels),
        "correct": correct,
        "accuracy": correct / len(labels),
        "wilson_95": [float(interval.low), float(interval.high)],
        "loss": _loss(probabilities, labels),
        "brier": float(((probabilities - np.eye(len(known))[labels]) ** 2).sum(axis=1).mean()),
        **_calibration(probabilities, labels),
        "per_class": {
            name: {key.replace("-score", ""): value for key, value in report[name].items()}
            for name in class_names
        },
        "confusion_matrix": confusion_matrix(labels, predicted, labels=known).tolist(),
    }


def _loss(probabilities: Probabilities, labels: Labels) -> float:
    # The sums of float32 probabilities differ from 1 by more than scikit-learn accepts.
    exact = probabilities.astype(np.float64)
    normalised = exact / exact.sum(axis=1, keepdims=True)
    return float(log_loss(labels, normalised, labels=range(exact.shape[1])))


def _calibration(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Compute the reliability diagram and the expected calibration error of the answered class.

    The method is from Guo et al. 2017.
    """
    confidence = probabilities.max(axis=1).clip(0, 1)
    correct = probabilities.argmax(axis=1) == labels
    accuracies, confidences = calibration_curve(correct, confidence, n_bins=CALIBRATION_BINS)
    counts, _ = np.histogram(confidence, CALIBRATION_BINS, (0, 1))
    counts = counts[counts > 0]
    error = float((counts * abs(accuracies - confidences)).sum() / counts.sum())
    return {
        "expected_calibration_error": error,
        "reliability": {
            "counts": counts.tolist(),
            "confidences": confidences.tolist(),
            "accuracies": accuracies.tolist(),
        },
    }
