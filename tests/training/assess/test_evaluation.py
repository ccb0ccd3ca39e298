"""Evaluation: the figures follow their definitions, and the test set is opened once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.bundles import linear_answer, write_linear_bundle
from tests.training.fashion_mnist import SampleSource
from training.assess.evaluation import evaluate, evaluate_bundle, measure
from training.data.samples import Images, Samples
from training.errors import RunError
from training.export.bundle import export
from training.fit.runs import read_metrics

NAMES = ("one", "two", "three")
PLOTS = {"confusion.png", "reliability.png", "mistakes.png"}


def probabilities_of(
    confidences: list[float], predicted: list[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Give the predicted class its confidence, and the other classes equal shares of the rest."""
    rest = (1 - np.array(confidences))[:, None] / 2
    values = np.repeat(rest, 3, axis=1)
    values[np.arange(len(predicted)), predicted] = confidences
    return values.astype(np.float32)


def test_figures_follow_their_definitions() -> None:
    """The figures of four answers equal those calculated by hand."""
    measured = measure(
        probabilities_of([0.9, 0.9, 0.6, 0.6], [0, 0, 1, 2]), np.array([0, 1, 1, 2]), NAMES
    )
    assert (measured["count"], measured["correct"], measured["accuracy"]) == (4, 3, 0.75)
    assert measured["confusion_matrix"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert measured["loss"] == pytest.approx(-np.log([0.9, 0.05, 0.6, 0.6]).mean(), rel=1e-4)
    assert measured["per_class"]["one"] == {
        "precision": 0.5,
        "recall": 1,
        "f1": pytest.approx(2 / 3),
        "support": 1,
    }
    # Two answers of 0.9 with one right, two of 0.6 with both right: (2 x 0.4 + 2 x 0.4) / 4.
    assert measured["expected_calibration_error"] == pytest.approx(0.4, abs=1e-6)
    assert measured["reliability"]["counts"] == [2, 2]
    # Squared differences of the four answers: 0.015, 1.715, 0.24 and 0.24.
    assert measured["brier"] == pytest.approx(0.5525, abs=1e-6)
    # Wilson 1927 for 3 of 4.
    assert measured["wilson_95"] == pytest.approx([0.3006, 0.9544], abs=1e-4)


@given(
    st.lists(
        st.tuples(st.floats(0.34, 1), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=50
    )
)
def test_figures_agree_with_each_other(answers: list[tuple[float, int, int]]) -> None:
    """For any answers, interval, matrix and counts agree, and no figure is missing."""
    confidences, predicted, labels = (list(column) for column in zip(*answers, strict=True))
    measured = measure(probabilities_of(confidences, predicted), np.array(labels), NAMES)
    low, high = measured["wilson_95"]
    assert low - 1e-9 <= measured["accuracy"] <= high + 1e-9
    assert np.trace(measured["confusion_matrix"]) == measured["correct"]
    assert (
        np.sum(measured["confusion_matrix"])
        == measured["count"]
        == sum(measured["reliability"]["counts"])
    )
    assert 0 <= measured["expected_calibration_error"] <= 1
    assert np.isfinite(measured["loss"])
    json.dumps(measured)


def test_run_is_measured_on_test_and_validation(small_run: Path) -> None:
    """The metrics hold test, test with flips and validation. The plots are in the same folder."""
    metrics = read_metrics(small_run)
    assert (metrics["test"]["count"], metrics["validation"]["count"]) == (100, 40)
    assert 0 < metrics["test_with_flips"]["accuracy"] <= 1
    assert {path.name for path in small_run.glob("*.png")} == PLOTS | {"curves.png"}


class NoiseSource(SampleSource):
    """Noise of 20 x 30 pixels. The labels are the classes with the largest mean probability.

    The mean is over the linear bundle's answers to an image and to its mirror image.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the linear bundle."""
        return "left", "middle", "right"

    def training(self) -> Samples:
        """30 images, with labels that allow a stratified split."""
        return Samples(self._draw(30), np.arange(30) % 3)

    def test(self) -> Samples:
        """60 images."""
        images = self._draw(60)
        means = [linear_answer(image, 3) + linear_answer(image[:, ::-1], 3) for image in images]
        return Samples(images, np.argmax(means, axis=1))

    def _draw(self, count: int) -> Images:
        return np.random.default_rng(1).integers(0, 256, (count, 20, 30), np.uint8)


def test_flips_are_averaged(tmp_path: Path) -> None:
    """The accuracy with flips averages the answers to an image and to its mirror image."""
    source = NoiseSource()
    bundle = write_linear_bundle(
        tmp_path / "linear",
        data_sha256=source.training().sha256(),
        training={"recipe": {"validation_fraction": 0.2, "split_seed": 1}},
    )
    metrics = evaluate_bundle(bundle.folder, source, tmp_path / "out")
    assert metrics["test_with_flips"]["accuracy"] == 1
    assert metrics["test"]["accuracy"] < 0.9


def test_bundle_of_other_data_is_rejected(tmp_path: Path) -> None:
    """A bundle is measured only with the data that it was made with. The error has both hashes."""
    folder = write_linear_bundle(tmp_path / "linear", data_sha256="1" * 64).folder
    found = NoiseSource().training().sha256()
    with pytest.raises(RunError, match=f"sha256 {found}, but .* was made with {'1' * 64}"):
        evaluate_bundle(folder, NoiseSource(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_test_set_is_opened_once(small_run: Path) -> None:
    """An evaluated run is not evaluated again."""
    with pytest.raises(RunError, match="the test set is opened once for each run"):
        evaluate(small_run, SampleSource())


def test_openings_of_the_test_set_are_logged(calibrated_run: Path, tmp_path: Path) -> None:
    """The run folder logs each opening of the test set: by evaluation and by each export."""
    export(calibrated_run, SampleSource(), tmp_path, "small", "7")
    header, *rows = (calibrated_run / "test-openings.csv").read_text().splitlines()
    assert header == "time,purpose,git_commit"
    assert rows[0].split(",")[1] == "evaluation"
    assert rows[-1].split(",")[1] == "comparison of small version 7 with Keras"


def test_bundle_has_the_figures_of_its_run(small_run: Path, tmp_path: Path) -> None:
    """ONNX Runtime gives a bundle the figures of its run, and does not overwrite them."""
    bundle = export(small_run, SampleSource(), tmp_path, "small", "1").folder
    measured = evaluate_bundle(bundle, SampleSource(), tmp_path / "out")
    expected = read_metrics(small_run)["test"]
    assert measured["test"]["confusion_matrix"] == expected["confusion_matrix"]
    assert measured["test"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert {path.name for path in (tmp_path / "out").iterdir()} == PLOTS | {"metrics.json"}
    with pytest.raises(RunError, match="holds measurements already"):
        evaluate_bundle(bundle, SampleSource(), tmp_path / "out")
