"""The shipped bundle: it is whole, it answers like the network it came from, and its figures are true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from service.bundle import Bundle, read_bundle, self_test_image
from service.inference.classifier import Classifier
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
    """Each bundle in models/, its hashes verified."""
    return read_bundle(Path(request.param).parent)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Any:
    """A session of ONNX Runtime on the bundle's model."""
    return onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])


def test_bundle_is_where_its_manifest_says(bundle: Bundle) -> None:
    """Name and version are those of the folders, every file is listed, and the model is below 20 MB."""
    assert bundle.folder.parts[-2:] == (bundle.manifest.name, bundle.manifest.version)
    assert {path.name for path in bundle.folder.iterdir()} == {
        *bundle.manifest.files,
        "manifest.json",
    }
    assert len(bundle.model) < 20_000_000
    assert bundle.manifest.class_names == CLASS_NAMES


def test_graph_is_as_agreed(bundle: Bundle) -> None:
    """The graph passes the checks of export, has the manifest's opset and names its classes."""
    graph = onnx.load_from_string(bundle.model)
    check_graph(graph)
    assert graph.opset_import[0].version == bundle.manifest.opset
    properties = {entry.key: entry.value for entry in graph.metadata_props}
    assert tuple(json.loads(properties["class_names"])) == bundle.manifest.class_names


def test_card_is_rendered_from_the_manifest(bundle: Bundle) -> None:
    """The card is what the code makes of the manifest, to the letter."""
    assert (bundle.folder / "MODEL_CARD.md").read_text() == render_card(bundle.manifest)


def test_self_test_is_answered(bundle: Bundle, session: Any) -> None:
    """The graph answers the self-test like the network that it was made from."""
    answer = session.run(None, {"image": self_test_image(bundle.manifest.input_size)[None]})[0][0]
    np.testing.assert_allclose(answer, bundle.manifest.self_test, atol=1e-4)


def test_lone_batch_is_answered_like_any(bundle: Bundle) -> None:
    """Two threads give the answers of one."""
    classifier = Classifier(bundle, "cpu", cores=8)
    assert classifier.batch_cores == 2
    assert Classifier(bundle, "cpu").batch_cores == 1
    for size in (1, 32):
        images = list(sample().images[:size])
        one, several = (classifier.classify(images, alone) for alone in (False, True))
        np.testing.assert_allclose(
            [a.probabilities for a in several], [a.probabilities for a in one], atol=1e-5
        )
        assert [a.in_distribution for a in several] == [a.in_distribution for a in one]


def test_golden_probabilities_are_answered() -> None:
    """ONNX Runtime gives Keras' probabilities for the golden set, whatever the batch."""
    model = read_bundle(Settings().model).model
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    golden = np.load(SAMPLE / "probabilities.npy")
    for size in (1, 7, 300):
        answers = [
            session.run(None, {"image": sample().images[i : i + size]})[0]
            for i in range(0, 300, size)
        ]
        np.testing.assert_allclose(np.concatenate(answers), golden, atol=1e-4)


@pytest.fixture(scope="module")
def answers(session: Any) -> Answers:
    """What the bundle answers to all 10,000 test images."""
    return run_graph(session, fashion_mnist().test().images, 500)


def test_accuracy_is_the_stated_one(bundle: Bundle, answers: Answers) -> None:
    """The accuracy on all 10,000 test images is to the image what manifest and card say, and at least 92 %."""
    correct = int((answers.probabilities.argmax(axis=1) == fashion_mnist().test().labels).sum())
    assert correct == bundle.manifest.metrics["test"]["correct"]
    assert correct >= 9_200
    assert bundle.manifest.data_sha256 == fashion_mnist().training().sha256()


def test_calibration_is_the_stated_one(bundle: Bundle, answers: Answers) -> None:
    """Calibration error, acceptance and coverage on the test images are what manifest and card say."""
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
    """The run that a bundle came from is described in runs/, with the same figures."""
    run = ROOT / "runs" / bundle.manifest.training["run"]
    measured = json.loads((run / "metrics.json").read_text())["test"]
    assert measured["correct"] == bundle.manifest.metrics["test"]["correct"]
