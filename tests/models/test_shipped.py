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
from service.imaging.letterbox import LETTERBOX
from service.imaging.model_input import InputSpec
from service.settings import Settings
from tests import golden
from tests.training.fashion_mnist import ROOT, fashion_mnist
from training.assess.card import render_card
from training.assess.evaluation import measure
from training.assess.uncertainty import measure_distances, measure_prediction_sets
from training.data.photos.inputs import to_inputs
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
    image = self_test_image(_input_spec(bundle).shape)
    answer = session.run(None, {"image": image[None]})[0][0]
    tolerance = golden.TOLERANCES.get(bundle.manifest.name, golden.TOLERANCE)
    np.testing.assert_allclose(answer, bundle.manifest.self_test, atol=tolerance)


@pytest.mark.parametrize("folder", Settings().models, ids=lambda folder: folder.name)
def test_golden_probabilities_are_answered(folder: Path) -> None:
    """ONNX Runtime gives the golden set's probabilities, in batches of any size."""
    served = read_bundle(newest_version(folder))
    session = onnxruntime.InferenceSession(served.model, providers=["CPUExecutionProvider"])
    images = to_inputs(golden.images(), _input_spec(served))
    for size in (1, 7, 300):
        batches = [images[start : start + size] for start in range(0, 300, size)]
        answers = [session.run(None, {"image": batch})[0] for batch in batches]
        np.testing.assert_allclose(
            np.concatenate(answers),
            golden.probabilities(folder.name),
            atol=golden.TOLERANCES[folder.name],
        )


@pytest.fixture(scope="module")
def answers(bundle: Bundle, session: Any) -> Answers:
    """The bundle's answers to all 10,000 test images."""
    return run_graph(session, to_inputs(fashion_mnist().test().images, _input_spec(bundle)), 100)


def _input_spec(bundle: Bundle) -> InputSpec:
    return InputSpec(bundle.manifest.preprocessing, bundle.manifest.input_size)


def test_accuracy_equals_the_manifest(bundle: Bundle, answers: Answers) -> None:
    """The count of correct test images equals the manifest exactly; grey models get 92 %."""
    correct = int((answers.probabilities.argmax(axis=1) == fashion_mnist().test().labels).sum())
    metrics = bundle.manifest.metrics
    stored = metrics["parity"].get("stored", {"test_correct": metrics["test"]["correct"]})
    assert correct == stored["test_correct"]
    assert correct >= 9_200 or bundle.manifest.preprocessing == LETTERBOX
    assert bundle.manifest.data_sha256 == fashion_mnist().training().sha256()


def test_calibration_equals_the_manifest(bundle: Bundle, answers: Answers) -> None:
    """Calibration error, acceptance and coverage on the test images equal the manifest."""
    manifest, labels = bundle.manifest, fashion_mnist().test().labels
    if "distance" not in manifest.metrics or manifest.distance_threshold is None:
        pytest.skip(f"{manifest.name} was not calibrated on images of the data set")
    assert manifest.prediction_sets is not None
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
