"""Own what is measured on the test set. Must never choose anything by it: choices are made on validation."""

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
from training.assess.calibration import load_calibrated, load_calibration
from training.assess.corruptions import CORRUPTIONS, corrupt
from training.assess.outliers import make_outliers
from training.assess.uncertainty import measure_distances, measure_prediction_sets
from training.data.photos.views import see_photos
from training.data.samples import Images, Labels, Samples, Source
from training.errors import RunError
from training.fit.answers import Answers, Probabilities, answer, run_graph
from training.fit.runs import METRICS_FILE, log_opening, read_config
from training.plots import plot_confusion, plot_reliability, plot_sheet

CALIBRATION_BINS = 15
MISTAKES_SHOWN = 40
SEED = 1  # of corruptions and outliers: every model is measured on the same


def evaluate(folder: Path, source: Source, photos: Path | None = None) -> dict[str, Any]:
    """Measure a finished run once on the test set and on validation; write ``metrics.json`` and pictures beside it.

    ``photos`` is a folder of labelled photos, some of other things: see ``training.data.photos.views``.

    Raises:
        RunError: The run was evaluated before, has not ended, or was made with other data.
    """
    if (folder / METRICS_FILE).exists():
        raise RunError(f"{folder} was evaluated already: the test set is opened once for each run")
    config = read_config(folder)
    model, calibration = load_calibrated(folder), load_calibration(folder)
    _, validation = config.split(source.training())
    measured = Measured(
        lambda images: answer(model, images),
        config.class_names,
        None if calibration is None else calibration.threshold,
        None if calibration is None else calibration.prediction_sets,
    )
    log_opening(folder, "evaluation")
    return _measure_and_write(folder, measured, source.test(), validation, photos)


def evaluate_bundle(
    folder: Path, source: Source, output: Path, photos: Path | None = None
) -> dict[str, Any]:
    """Measure a published bundle, as ONNX Runtime answers, like a run; write ``metrics.json`` to ``output``.

    Raises:
        BundleError: The bundle is damaged.
        RunError: ``output`` holds measurements already, or the bundle was made with other data.
    """
    if (output / METRICS_FILE).exists():
        raise RunError(f"{output} holds measurements already: choose another --output")
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    training = source.training()
    if training.sha256() != manifest.data_sha256:
        raise RunError(
            f"{folder} was made with training data of sha256 {manifest.data_sha256}: name it with --data"
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
    return _measure_and_write(output, measured, source.test(), validation, photos)


@dataclass(frozen=True)
class Measured:
    """The model that is measured, a run's or a bundle's: what it answers, and what was fitted to it on validation."""

    answer: Callable[[Images], Answers]
    class_names: tuple[str, ...]
    distance_threshold: float | None
    prediction_sets: PredictionSets | None


def _measure_and_write(
    folder: Path, measured: Measured, test: Samples, validation: Samples, photos: Path | None
) -> dict[str, Any]:
    """Measure on the test set and on validation; write ``metrics.json`` and pictures."""
    names = measured.class_names
    answers = measured.answer(test.images)
    flipped = answers.probabilities + measured.answer(test.images[:, :, ::-1]).probabilities
    metrics = {
        "test": measure(answers.probabilities, test.labels, names),
        "test_with_flips": {"accuracy": float(accuracy_score(test.labels, flipped.argmax(axis=1)))},
        "validation": measure(
            measured.answer(validation.images).probabilities, validation.labels, names
        ),
        "corruptions": {
            name: float(
                accuracy_score(test.labels, measured.answer(images).probabilities.argmax(axis=1))
            )
            for name in CORRUPTIONS
            for images in [corrupt(test.images, name, SEED)]
        },
    }
    if measured.prediction_sets is not None:
        metrics["prediction_sets"] = measure_prediction_sets(
            answers.probabilities, test.labels, measured.prediction_sets, names
        )
    if measured.distance_threshold is not None:
        metrics["distance"] = _measure_refusals(
            measured, measured.distance_threshold, answers, test, photos
        )
    report(folder, metrics, answers.probabilities, test, names)
    return metrics


def _measure_refusals(
    measured: Measured, threshold: float, answers: Answers, test: Samples, photos: Path | None
) -> dict[str, Any]:
    """Measure what is refused of the test set, of outliers and of photos of the model's own classes."""
    kinds = make_outliers(test.images, photos, SEED)
    outliers = {kind: measured.answer(images).distances for kind, images in kinds.items()}
    refusals = measure_distances(
        answers.distances, test.labels, outliers, threshold, measured.class_names
    )
    if photos is not None:
        known = measured.answer(see_photos(photos, test.input_size, of_classes=True)).distances
        refusals["photos"] = {"count": len(known), "accepted": float((known <= threshold).mean())}
    return refusals


def report(
    folder: Path,
    metrics: dict[str, Any],
    probabilities: Probabilities,
    test: Samples,
    class_names: tuple[str, ...],
) -> None:
    """Write ``metrics.json`` and the pictures of what was measured on the test set."""
    measured = metrics["test"]
    plot_confusion(folder / "confusion.png", measured["confusion_matrix"], class_names)
    plot_reliability(
        folder / "reliability.png", measured["reliability"], measured["expected_calibration_error"]
    )
    predicted = probabilities.argmax(axis=1)
    mistakes = np.flatnonzero(predicted != test.labels)
    worst = mistakes[np.argsort(-probabilities.max(axis=1)[mistakes], kind="stable")][
        :MISTAKES_SHOWN
    ]
    captions = [
        f"{class_names[test.labels[i]]}\nas {class_names[predicted[i]]} {probabilities[i].max():.0%}"
        for i in worst
    ]
    plot_sheet(folder / "mistakes.png", test.images[worst], captions)
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


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
    exact = probabilities.astype(
        np.float64
    )  # float32 sums miss 1 by more than scikit-learn accepts
    return float(
        log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=range(exact.shape[1]))
    )


def _calibration(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """Compute the reliability diagram and the expected calibration error (Guo et al. 2017) of the top class."""
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
