"""Export: the bundle answers like the run, and nothing published is overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from service.bundle import read_bundle, self_test_image
from service.errors import BundleError
from tests.training.fashion_mnist import SampleSource
from training.errors import RunError
from training.export.bundle import export
from training.fit.answers import predict, run_graph
from training.fit.runs import load_model, read_config, read_metrics

SOURCE = SampleSource()


def test_bundle_answers_like_keras(small_run: Path, bundle_folder: Path) -> None:
    """The bundle gives Keras' probabilities for test images and for the self-test."""
    bundle, images = read_bundle(bundle_folder), SOURCE.test().images
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    expected = predict(load_model(small_run), images)
    np.testing.assert_allclose(run_graph(session, images, 100).probabilities, expected, atol=1e-5)
    (answer,) = run_graph(session, self_test_image((28, 28))[None], 1).probabilities
    np.testing.assert_allclose(answer, bundle.manifest.self_test, atol=1e-5)


def test_manifest_and_card_hold_the_figures(small_run: Path, bundle_folder: Path) -> None:
    """The manifest holds the figures of the run and of the gate, and the card shows them."""
    manifest = read_bundle(bundle_folder).manifest
    measured = read_metrics(small_run)["test"]
    assert manifest.metrics["test"]["accuracy"] == measured["accuracy"]
    assert manifest.metrics["parity"]["test_accuracy"] == measured["accuracy"]
    assert manifest.data_sha256 == SOURCE.training().sha256()
    assert manifest.class_names == SOURCE.class_names
    assert manifest.training["epochs"] == 3
    assert f"{measured['accuracy']:.2%}" in (bundle_folder / "MODEL_CARD.md").read_text()


def test_published_version_is_not_overwritten(small_run: Path, bundle_folder: Path) -> None:
    """An export under an existing name and version fails and changes nothing."""
    before = (bundle_folder / "manifest.json").read_bytes()
    with pytest.raises(BundleError, match="exists already"):
        export(small_run, SOURCE, bundle_folder.parents[1], "small", "1")
    assert (bundle_folder / "manifest.json").read_bytes() == before


def test_incomplete_run_is_not_exported(small_run: Path, tmp_path: Path) -> None:
    """An export without metrics names evaluate, and an export without weights names their file."""
    run_folder = tmp_path / "run"
    shutil.copytree(small_run, run_folder)
    (run_folder / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"was not evaluated: run `python -m training evaluate"):
        export(run_folder, SOURCE, tmp_path, "small", "1")
    shutil.copy(small_run / "metrics.json", run_folder)
    (run_folder / "model.keras").unlink()
    with pytest.raises(RunError, match=r"model\.keras is missing"):
        export(run_folder, SOURCE, tmp_path, "small", "1")
    assert read_config(run_folder).name == "small"
