"""The shipped bundles are complete, answer like their Keras networks, and state true figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.bundle import Bundle, newest_version, read_bundle, self_test_image
from service.settings import Settings
from tests.training.fashion_mnist import ROOT, SAMPLE, fashion_mnist, sample
from training.assess.card import render_card
from training.assess.evaluation import measure
from training.assess.uncertainty import measure_distances, measure_prediction_sets
from training.data.sources.idx import CLASS_NAMES
from training.export.gate import check_graph
from training.fit.answers import Answers, run_graph


@pytest.fixture(
    scope="module",
    params=sorted((ROOT / "models").glob("*/*/manifest.json")),
    ids=lambda path: "-".join(path.parts[-3:-1]),
)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """Each bundle in models/, with verified hashes."""
    return read_bundle(Path(request.param).parent)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Any:
    """An ONNX Runtime session of the bundle's model."""
    return onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])


def test_manifest_matches_the_folder(bundle: Bundle) -> None:
    """The folders are name and version, each file is listed, and the model is below 20 MB."""
    assert bundle.folder.parts[-2:] == (bundle.manifest.name, bundle.manifest.version)
    files = {path.name for path in bundle.folder.iterdir()}
    assert files == {*bundle.manifest.files, "manifest.json"}
    assert len(bundle.model) < 20_000_000
    assert bundle.manifest.class_names == CLASS_NAMES


def test_graph_keeps_the_contract(bundle: Bundle) -> None:
    """The graph passes the export's checks, has the manifest's opset and lists the class names."""
    graph = onnx.load_from_string(bundle.model)
    check_graph(graph)
    assert graph.opset_import[0].version == bundle.manifest.opset
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert tuple(json.loads(properties["class_names"])) == bundle.manifest.class_names


def test_card_is_rendered_from_the_manifest(bundle: Bundle) -> None:
    """The card is exactly what the code renders from the manifest."""
    assert (bundle.folder / "MODEL_CARD.md").read_text() == render_card(bundle.manifest)


def test_self_test_is_answered(bundle: Bundle, session: Any) -> None:
    """The graph gives the self-test image the probabilities in the manifest."""
    answer = session.run(None, {"image": self_test_image(bundle.manifest.input_size)[None]})[0][0]
    np.testing.assert_allclose(answer, bundle.manifest.self_test, atol=1e-4)


def test_golden_probabilities_are_answered() -> None:
    """ONNX Runtime gives Keras' probabilities for the golden set, in batches of any size."""
    model = read_bundle(newest_version(Settings().models[0])).model
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    golden = np.load(SAMPLE / "probabilities.npy")
    for size in (1, 7, 300):
        batches = [sample().images[start : start + size] for start in range(0, 300, size)]
        answers = [session.run(None, {"image": batch})[0] for batch in batches]
        np.testing.assert_allclose(np.concatenate(answers), golden, atol=1e-4)


@pytest.fixture(scope="module")
def answers(session: Any) -> Answers:
    """The bundle's answers to all 10,000 test images."""
    return run_graph(session, fashion_mnist().test().images, 500)


def test_accuracy_equals_the_manifest(bundle: Bundle, answers: Answers) -> None:
    """The count of correct test images equals the manifest exactly, and is at least 92 %."""
    correct = int((answers.probabilities.argmax(axis=1) == fashion_mnist().test().labels).sum())
    assert correct == bundle.manifest.metrics["test"]["correct"]
    assert correct >= 9_200
    assert bundle.manifest.data_sha256 == fashion_mnist().training().sha256()


def test_calibration_equals_the_manifest(bundle: Bundle, answers: Answers) -> None:
    """Calibration error, acceptance and coverage on the test images equal the manifest."""
    manifest, labels = bundle.manifest, fashion_mnist().test().labels
    if manifest.prediction_sets is None or manifest.distance_threshold is None:
        pytest.skip(f"{manifest.name} was not calibrated")
    measured = measure(answers.probabilities, labels, manifest.class_names)
    for figure in ("loss", "brier", "expected_calibration_error"):
        assert measured[figure] == pytest.approx(manifest.metrics["test"][figure], abs=1e-4)
    known = measure_distances(
        answers.distances, labels, {}, manifest.distance_threshold, manifest.class_names
    )
    assert known["accepted"] == pytest.approx(manifest.metrics["distance"]["accepted"], abs=2e-4)
    sets = measure_prediction_sets(
        answers.probabilities, labels, manifest.prediction_sets, manifest.class_names
    )
    for coverage, stated in manifest.metrics["prediction_sets"].items():
        assert sets[coverage]["coverage"] == pytest.approx(stated["coverage"], abs=2e-4)
        assert sets[coverage]["mean_size"] == pytest.approx(stated["mean_size"], abs=2e-4)


def test_run_of_the_bundle_is_in_the_repository(bundle: Bundle) -> None:
    """runs/ describes the run that the bundle came from, with the same figures."""
    run = ROOT / "runs" / bundle.manifest.training["run"]
    measured = json.loads((run / "metrics.json").read_text())["test"]
    assert measured["correct"] == bundle.manifest.metrics["test"]["correct"]
