"""Own what is measured on the test set. Must never choose anything by it: choices are made on validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, log_loss

from service.bundle import read_bundle
from training.errors import RunError
from training.pictures import plot_confusion, plot_reliability, plot_sheet
from training.runs import METRICS_FILE, load_model, read_config
from training.samples import Images, Labels, Samples, Source

Probabilities = NDArray[np.float32]
CALIBRATION_BINS = 15
MISTAKES_SHOWN = 40


def evaluate(folder: Path, source: Source) -> dict[str, Any]:
    """Measure a finished run once on the test set and on validation; write ``metrics.json`` and pictures beside it.

    Raises:
        RunError: The run was evaluated before, has not ended, or was made with other data.
    """
    if (folder / METRICS_FILE).exists():
        raise RunError(f"{folder} was evaluated already: the test set is opened once for each run")
    config = read_config(folder)
    model = load_model(folder)
    _, validation = config.split(source.training())
    test = source.test()
    probabilities = predict(model, test.images)
    flipped = probabilities + predict(model, test.images[:, :, ::-1])
    metrics = {
        "test": measure(probabilities, test.labels, config.class_names),
        "test_with_flips": {"accuracy": float(accuracy_score(test.labels, flipped.argmax(axis=1)))},
        "validation": measure(predict(model, validation.images), validation.labels, config.class_names),
    }
    report(folder, metrics, probabilities, test, config.class_names)
    return metrics


def evaluate_bundle(folder: Path, source: Source, output: Path) -> dict[str, Any]:
    """Measure a published bundle, as ONNX Runtime answers, on the test set; write ``metrics.json`` to ``output``.

    Raises:
        BundleError: The bundle is damaged.
        RunError: ``output`` holds measurements already.
    """
    if (output / METRICS_FILE).exists():
        raise RunError(f"{output} holds measurements already: choose another --output")
    bundle = read_bundle(folder)
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    test = source.test()
    probabilities = run_graph(session, test.images, 500)
    metrics = {"test": measure(probabilities, test.labels, bundle.manifest.class_names)}
    output.mkdir(parents=True, exist_ok=True)
    report(output, metrics, probabilities, test, bundle.manifest.class_names)
    return metrics


def report(
    folder: Path, metrics: dict[str, Any], probabilities: Probabilities, test: Samples, class_names: tuple[str, ...]
) -> None:
    """Write ``metrics.json`` and the pictures of what was measured on the test set."""
    measured = metrics["test"]
    plot_confusion(folder / "confusion.png", measured["confusion_matrix"], class_names)
    plot_reliability(folder / "reliability.png", measured["reliability"], measured["expected_calibration_error"])
    predicted = probabilities.argmax(axis=1)
    mistakes = np.flatnonzero(predicted != test.labels)
    worst = mistakes[np.argsort(-probabilities.max(axis=1)[mistakes], kind="stable")][:MISTAKES_SHOWN]
    captions = [
        f"{class_names[test.labels[i]]}\nas {class_names[predicted[i]]} {probabilities[i].max():.0%}" for i in worst
    ]
    plot_sheet(folder / "mistakes.png", test.images[worst], captions)
    (folder / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def run_graph(session: Any, images: Images, batch_size: int) -> Probabilities:
    """Return the probabilities ``[N, classes]`` that a session of ONNX Runtime gives images ``[N, H, W]``."""
    starts = range(0, len(images), batch_size)
    batches = [session.run(["probabilities"], {"image": images[i : i + batch_size]})[0] for i in starts]
    return np.concatenate(batches)


def predict(model: Any, images: Images) -> Probabilities:
    """Return the probabilities ``[N, classes]`` that a Keras model of logits gives images ``[N, H, W]``."""
    logits = model.predict(images[..., None].astype(np.float32), batch_size=500, verbose=0)
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.softmax(logits)), dtype=np.float32)


def measure(probabilities: Probabilities, labels: Labels, class_names: tuple[str, ...]) -> dict[str, Any]:
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
        **_calibration(probabilities, labels),
        "per_class": {
            name: {key.replace("-score", ""): value for key, value in report[name].items()} for name in class_names
        },
        "confusion_matrix": confusion_matrix(labels, predicted, labels=known).tolist(),
    }


def _loss(probabilities: Probabilities, labels: Labels) -> float:
    exact = probabilities.astype(np.float64)  # float32 sums miss 1 by more than scikit-learn accepts
    return float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=range(exact.shape[1])))


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
