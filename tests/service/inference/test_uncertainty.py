"""What a calibrated model says of its own answers, through HTTP and a real session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.bundle import PredictionSets, read_bundle
from service.errors import BundleError
from service.inference.classifier import Classifier
from service.settings import Settings
from tests.service.api.test_predict import assert_problem, post
from tests.service.bundles import linear_answer, linear_model, write_linear_bundle
from tests.service.conftest import wait_until_ready
from tests.service.images import encode, noise

PIXELS = noise(20, 30)
SETS = PredictionSets(
    coverages=(0.8, 0.9), minimum_probabilities=((0.9, 0.35, 0.1), (0.0, 0.0, 0.0))
)


def write_bundle(folder: Path, **manifest: Any) -> Path:
    """Write a bundle whose distance is the mean brightness, 0 to 1, and whose classes are known up to 0.6."""
    fields = {"distance_threshold": 0.6, "prediction_sets": SETS} | manifest
    return write_linear_bundle(
        folder, model=linear_model(3, 20, 30, with_distance=True), **fields
    ).folder


@pytest.fixture
def calibrated(tmp_path: Path) -> Iterator[TestClient]:
    """The application on a calibrated bundle."""
    settings = Settings(model=write_bundle(tmp_path / "linear" / "1"), device="cpu")
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize(("level", "known"), [(0.2, True), (0.9, False)])
def test_answer_says_whether_the_image_is_known(
    calibrated: TestClient, level: float, known: bool
) -> None:
    """The distance is the graph's second output, and an image is known up to the manifest's threshold."""
    body = post(calibrated, encode(np.full((20, 30), round(255 * level), np.uint8))).json()
    assert body["distance"] == pytest.approx(level, abs=0.01)
    assert body["in_distribution"] is known
    assert "prediction_set" not in body


@pytest.mark.parametrize(("coverage", "row"), [(0.8, 0), (0.85, 1), (0.9, 1)])
def test_prediction_set_holds_the_likely_classes(
    calibrated: TestClient, coverage: float, row: int
) -> None:
    """A class is in the set if its probability reaches its own minimum of the next coverage, best first."""
    body = post(calibrated, encode(PIXELS), coverage=coverage).json()
    names = sorted(body["probabilities"], key=lambda name: -body["probabilities"][name])
    minima = dict(zip(body["probabilities"], SETS.minimum_probabilities[row], strict=True))
    assert body["prediction_set"] == [
        name for name in names if body["probabilities"][name] >= minima[name]
    ]
    assert len(body["prediction_set"]) == (linear_answer(PIXELS, 3) >= list(minima.values())).sum()


def test_top_k_does_not_change_the_set(calibrated: TestClient) -> None:
    """The prediction set is of all classes, whatever ``top_k`` shows."""
    body = post(calibrated, encode(PIXELS), coverage=0.9, top_k=1).json()
    assert len(body["probabilities"]) == 1
    assert len(body["prediction_set"]) == 3


@pytest.mark.parametrize("coverage", [0.5, 0.95, 0, 1, -1, "much", "nan"])
def test_coverage_that_is_not_to_be_had_is_a_problem(calibrated: TestClient, coverage: Any) -> None:
    """A coverage out of range is answered 422, with the range that this model has."""
    body = assert_problem(
        post(calibrated, encode(PIXELS), coverage=coverage), 422, "invalid-parameter"
    )
    assert "coverage" in body["detail"]
    if coverage in (0.5, 0.95):
        assert "send 0.8 to 0.9" in body["detail"]


def test_model_that_was_not_calibrated_says_nothing_of_it(linear: TestClient) -> None:
    """Older bundles answer as before, and a coverage asked of them is a problem that says why."""
    assert (
        not {"distance", "in_distribution", "prediction_set"}
        & post(linear, encode(PIXELS)).json().keys()
    )
    body = assert_problem(post(linear, encode(PIXELS), coverage=0.9), 422, "invalid-parameter")
    assert "has no prediction sets" in body["detail"]


def test_manifest_without_the_output_is_refused(tmp_path: Path) -> None:
    """A threshold for a distance that the graph does not give is a broken bundle."""
    bundle = write_linear_bundle(tmp_path / "linear" / "1", distance_threshold=1.0)
    with pytest.raises(BundleError, match="threshold for its output distance"):
        Classifier(bundle, "cpu")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (
            {"coverages": [0.9, 0.8], "minimum_probabilities": [[0, 0, 0], [0, 0, 0]]},
            "coverages must rise",
        ),
        (
            {"coverages": [0.8, 0.9], "minimum_probabilities": [[0, 0, 0]]},
            "1 rows of minimum_probabilities for 2",
        ),
        (
            {"coverages": [0.8], "minimum_probabilities": [[0, 0]]},
            "3 minimum probabilities a coverage",
        ),
        ({"coverages": [1.8], "minimum_probabilities": [[0, 0, 0]]}, "less than or equal to 1"),
    ],
)
def test_sets_that_contradict_themselves_are_refused(
    tmp_path: Path, sets: dict[str, Any], said: str
) -> None:
    """A manifest whose prediction sets do not fit together, or the classes, is not valid."""
    folder = write_bundle(tmp_path / "linear" / "1")
    manifest = folder / "manifest.json"
    good = read_bundle(folder).manifest.model_dump(mode="json")
    manifest.write_text(json.dumps(good | {"prediction_sets": sets}))
    with pytest.raises(BundleError, match=said):
        read_bundle(folder)
