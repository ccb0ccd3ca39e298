"""Distances and prediction sets, tested through HTTP and a real session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.bundle import PredictionSets, read_bundle
from service.inference.classification import Classification
from service.settings import Settings
from tests.service.api.test_predict import assert_problem, post
from tests.service.bundles import linear_answer, linear_model, write_linear_bundle
from tests.service.conftest import wait_until_ready
from tests.service.images import encode, noise

PIXELS = noise(20, 30)
SETS = PredictionSets(
    coverages=(0.8, 0.9), minimum_probabilities=((0.9, 0.35, 0.1), (0.0, 0.0, 0.0))
)


@pytest.fixture
def calibrated(tmp_path: Path) -> Iterator[TestClient]:
    """Client of an application that serves a calibrated bundle.

    The distance is the image's mean brightness, 0 to 1. The threshold is 0.6.
    """
    bundle = write_linear_bundle(
        tmp_path / "linear" / "1",
        model=linear_model(3, 20, 30, with_distance=True),
        distance_threshold=0.6,
        prediction_sets=SETS,
    )
    with TestClient(create_app(Settings(models=(bundle.folder,), device="cpu"))) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize(("level", "known"), [(0.2, True), (0.9, False)])
def test_answer_says_whether_the_image_is_in_distribution(
    calibrated: TestClient, level: float, known: bool
) -> None:
    """The distance is the model's second output. The manifest's threshold is applied to it."""
    body = post(calibrated, encode(np.full((20, 30), round(255 * level), np.uint8))).json()
    assert body["distance"] == pytest.approx(level, abs=0.01)
    assert body["in_distribution"] is known
    assert "prediction_set" not in body


@pytest.mark.parametrize(("coverage", "row"), [(0.8, 0), (0.85, 1), (0.9, 1)])
def test_prediction_set_holds_the_likely_classes(
    calibrated: TestClient, coverage: float, row: int
) -> None:
    """The thresholds of the lowest calibrated coverage >= ``coverage`` decide on each class."""
    body = post(calibrated, encode(PIXELS), coverage=coverage).json()
    probabilities = body["probabilities"]
    minima = dict(zip(probabilities, SETS.minimum_probabilities[row], strict=True))
    best_first = sorted(probabilities, key=lambda name: -probabilities[name])
    assert body["prediction_set"] == [
        name for name in best_first if probabilities[name] >= minima[name]
    ]
    assert len(body["prediction_set"]) == (linear_answer(PIXELS, 3) >= list(minima.values())).sum()


def test_top_k_does_not_change_the_prediction_set(calibrated: TestClient) -> None:
    """``top_k`` limits the probabilities, not the prediction set."""
    body = post(calibrated, encode(PIXELS), coverage=0.9, top_k=1).json()
    assert len(body["probabilities"]) == 1
    assert len(body["prediction_set"]) == 3


@pytest.mark.parametrize("coverage", [0.5, 0.95, 0, 1, -1, "much", "nan"])
def test_coverage_out_of_range_is_rejected(calibrated: TestClient, coverage: Any) -> None:
    """A coverage out of range gets 422, and the error names the model's range."""
    answer = post(calibrated, encode(PIXELS), coverage=coverage)
    body = assert_problem(answer, 422, "invalid-parameter")
    assert "coverage" in body["detail"]
    if coverage in (0.5, 0.95):
        assert "the model linear has prediction sets for 0.8 to 0.9; send" in body["detail"]


def test_uncalibrated_model_answers_without_uncertainty(linear: TestClient) -> None:
    """Answers of an uncalibrated bundle lack these fields; a request with a coverage gets 422."""
    body = post(linear, encode(PIXELS)).json()
    assert not {"distance", "in_distribution", "prediction_set"} & body.keys()
    answer = post(linear, encode(PIXELS), coverage=0.9)
    body = assert_problem(answer, 422, "invalid-parameter")
    assert "has no prediction sets" in body["detail"]


def test_distance_at_the_threshold_is_in_distribution(linear_folder: Path) -> None:
    """The threshold itself is still accepted."""
    manifest = read_bundle(linear_folder).manifest.model_copy(update={"distance_threshold": 0.5})
    assert Classification(manifest, [1.0, 0.0, 0.0], 0, 0.5).in_distribution is True
    assert Classification(manifest, [1.0, 0.0, 0.0], 0, 0.5001).in_distribution is False
