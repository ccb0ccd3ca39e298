"""Calibration: each fit has the properties of its method, and bundles contain the results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax

from service.bundle import read_bundle
from tests.training.fashion_mnist import SampleSource
from training.assess.calibration import (
    COVERAGES,
    augment,
    calibrate,
    fit_offsets,
    fit_prediction_sets,
    fit_space,
    fit_temperature,
    load_calibrated,
    load_calibration,
)
from training.assess.evaluation import evaluate_bundle
from training.errors import RunError
from training.export.bundle import export
from training.fit.answers import answer
from training.fit.runs import load_model, read_config, read_metrics

SOURCE = SampleSource()


@given(st.floats(0.2, 5), st.integers(0, 1_000))
@settings(max_examples=20, deadline=None)
def test_temperature_undoes_a_factor_on_calibrated_logits(factor: float, seed: int) -> None:
    """If calibrated logits are multiplied by a factor, the temperature is about that factor."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (4_000, 5))
    # The argmax of logits plus Gumbel noise is a draw from their softmax.
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature((logits * factor).astype(np.float32), labels) == pytest.approx(
        factor, rel=0.15
    )


def test_distance_is_the_relative_mahalanobis_distance() -> None:
    """The distance to a class equals the formula of the method, computed here without whitening."""
    generator = np.random.default_rng(1)
    labels = np.arange(3_000) % 3
    features = (
        generator.normal(0, 1, (3_000, 4)) @ generator.normal(0, 1, (4, 4))
        + 5 * np.eye(3, 4)[labels]
    )

    def squared(centre: NDArray[np.float64], residuals: NDArray[np.float64]) -> NDArray[np.float64]:
        inverse = np.linalg.inv(residuals.T @ residuals / len(residuals))
        return np.asarray(np.einsum("nd,de,ne->n", features - centre, inverse, features - centre))

    centres = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    mean = features.mean(axis=0)
    measured = np.asarray(
        fit_space(features.astype(np.float32), labels).measure(features.astype(np.float32))
    )
    for label in range(3):
        expected = squared(centres[label], features - centres[labels]) - squared(
            mean, features - mean
        )
        np.testing.assert_allclose(measured[:, label], expected, rtol=0.05, atol=0.2)


def test_dead_and_duplicate_features_are_harmless() -> None:
    """A feature that is always zero and a duplicate feature leave all distances finite."""
    features = np.random.default_rng(1).normal(0, 1, (500, 3)).astype(np.float32)
    features[:, 1], features[:, 2] = 0, features[:, 0]
    assert np.isfinite(np.asarray(fit_space(features, np.arange(500) % 2).measure(features))).all()


def test_each_class_is_accepted_equally() -> None:
    """With offsets, 95 % of each class has a distance of at most zero, for any spread."""
    generator = np.random.default_rng(1)
    labels = np.arange(2_000) % 2
    features = (
        generator.normal(0, 1, (2_000, 3)) * np.where(labels, 3, 1)[:, None] + 9 * labels[:, None]
    ).astype("f")
    space = fit_offsets(fit_space(features, labels), features, labels)
    own = np.asarray(space.measure(features))[np.arange(2_000), labels]
    for label in (0, 1):
        assert (own[labels == label] <= 0).mean() == pytest.approx(0.95, abs=0.002)


def test_prediction_sets_have_the_promised_coverage() -> None:
    """Over many random draws, each class has at least the requested coverage, and little more."""
    generator = np.random.default_rng(1)
    held = np.zeros((len(COVERAGES), 2))
    for _ in range(300):
        labels = np.arange(400) % 2
        logits = generator.normal(np.eye(2)[labels], 1 + labels[:, None])
        probabilities = np.exp(log_softmax(logits, axis=1)).astype(np.float32)
        minima = fit_prediction_sets(probabilities[:200], labels[:200])
        for label in (0, 1):
            own = probabilities[200:][labels[200:] == label, label]
            held[:, label] += (own >= minima[:, [label]]).mean(axis=1) / 300
    # With 100 images in each class, the expected coverage is between c and c + 1/101. 300 draws
    # leave an error of 0.003.
    assert (held >= np.array(COVERAGES)[:, None] - 0.006).all()
    assert (held <= np.array(COVERAGES)[:, None] + 1 / 101 + 0.006).all()


def test_ranks_are_exact() -> None:
    """With 99 images of a class, coverage c takes the value of rank 100 (1 - c), to the image."""
    values = np.arange(1, 100) / 100
    minima = fit_prediction_sets(np.stack([values, 1 - values], axis=1), np.zeros(99, np.int64))
    np.testing.assert_allclose(minima[:, 0], [rank / 100 for rank in range(20, 0, -1)])


def test_too_few_images_promise_nothing() -> None:
    """If a class has too few validation images for a coverage, every set holds this class."""
    minima = fit_prediction_sets(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), np.array([0, 1]))
    assert (minima == 0).all()


def test_calibration_keeps_the_answered_classes(calibrated_run: Path) -> None:
    """Calibration keeps the most likely class and accepts 95 % of validation."""
    images = SOURCE.training().images
    calibration = load_calibration(calibrated_run)
    assert calibration is not None
    plain, calibrated = (
        answer(load_model(calibrated_run), images),
        answer(load_calibrated(calibrated_run), images),
    )
    assert (plain.probabilities.argmax(1) == calibrated.probabilities.argmax(1)).all()
    assert len(plain.distances) == 0
    _, validation = read_config(calibrated_run).split(SOURCE.training())
    accepted = (
        answer(load_calibrated(calibrated_run), validation.images).distances
        <= calibration.threshold
    )
    assert accepted.mean() == pytest.approx(0.95, abs=0.03)


def test_bundle_carries_the_calibration(calibrated_run: Path, tmp_path: Path) -> None:
    """Graph, manifest and card of a bundle hold the calibration and its figures."""
    bundle = export(calibrated_run, SOURCE, tmp_path, "calibrated", "1")
    calibration, metrics = load_calibration(calibrated_run), read_metrics(calibrated_run)
    assert calibration is not None
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["probabilities", "distance"]
    images = SOURCE.test().images
    probabilities, distances = session.run(None, {"image": images})
    expected = answer(load_calibrated(calibrated_run), images)
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(distances, expected.distances, atol=1e-3 * expected.distances.std())
    assert bundle.manifest.distance_threshold == calibration.threshold
    assert bundle.manifest.prediction_sets == calibration.prediction_sets
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    for kind, row in metrics["distance"]["outliers"].items():
        assert f"| {kind} | 100 | {row['auroc']:.4f} | {row['refused']:.1%} |" in card
    assert f"| flip upside down | {metrics['corruptions']['flip upside down']:.2%} |" in card
    assert f"Brier score {metrics['test']['brier']:.4f}" in card


def test_bundle_reproduces_every_figure(calibrated_run: Path, tmp_path: Path) -> None:
    """The evaluation of a bundle gives the figures of its manifest."""
    bundle = export(calibrated_run, SOURCE, tmp_path, "calibrated", "1")
    measured = json.loads(json.dumps(evaluate_bundle(bundle.folder, SOURCE, tmp_path / "out")))
    stated = read_bundle(bundle.folder).manifest.metrics
    assert measured.keys() == stated.keys() - {"parity"}
    assert measured["corruptions"] == pytest.approx(stated["corruptions"], abs=0.02)
    assert (
        measured["prediction_sets"]["0.95"]["coverage"]
        == stated["prediction_sets"]["0.95"]["coverage"]
    )
    for kind, row in stated["distance"]["outliers"].items():
        assert measured["distance"]["outliers"][kind]["auroc"] == pytest.approx(
            row["auroc"], abs=1e-3
        )


def test_augmented_images_count_as_known(small_run: Path, tmp_path: Path) -> None:
    """A distance fitted to augmented images accepts 95 % of them. The other fits do not change."""
    shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("metrics.json"))
    plain = calibrate(tmp_path / "run", SOURCE)
    photographic = calibrate(tmp_path / "run", SOURCE, "photographic")
    assert load_calibration(tmp_path / "run") is not None
    assert (plain.augmentation, photographic.augmentation) == ("none", "photographic")
    assert plain.temperature == photographic.temperature
    assert (plain.minimum_probabilities == photographic.minimum_probabilities).all()
    _, validation = read_config(small_run).split(SOURCE.training())
    shown = augment(validation, "photographic").round().astype(np.uint8)
    accepted = (
        answer(photographic.apply(load_model(small_run)), shown).distances <= photographic.threshold
    )
    assert accepted.mean() == pytest.approx(0.95, abs=0.06)


def test_offsets_are_fitted_to_augmented_images(small_run: Path, tmp_path: Path) -> None:
    """95 % of the augmented validation images of each class are nearer to it than its offset."""
    shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("metrics.json"))
    space = calibrate(tmp_path / "run", SOURCE, "photographic").space
    assert space is not None
    model = load_model(small_run)
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    features = keras.Model(model.input, dense[-1].input)
    _, validation = read_config(small_run).split(SOURCE.training())
    seen = features.predict(augment(validation, "photographic")[..., None], verbose=0)
    own = np.asarray(space.measure(seen))[np.arange(len(validation)), validation.labels]
    for label in range(10):
        quantile = np.quantile(own[validation.labels == label], 0.95)
        assert quantile == pytest.approx(0, abs=1e-3 * float(own.std()))


def test_calibration_comes_before_evaluation(small_run: Path) -> None:
    """An evaluated run cannot be calibrated, because its figures would be false."""
    with pytest.raises(RunError, match="was evaluated already"):
        calibrate(small_run, SOURCE)


def test_damaged_calibration_is_rejected(small_run: Path, tmp_path: Path) -> None:
    """A damaged file gives an error with the command that repairs it."""
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    path = folder / "calibration.npz"
    np.savez(path, temperature=1.0)
    for size in (path.stat().st_size, 100, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(RunError, match="python -m training calibrate"):
            load_calibration(folder)
