"""The classifier: which bundles it rejects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.bundle import read_bundle
from service.errors import BundleError, InferenceError
from service.inference.classifier import Classifier, load_classifier
from service.settings import Settings
from tests.service.bundles import linear_answer, linear_model, write_linear_bundle
from tests.service.images import noise


def test_batch_is_answered_in_order(linear_folder: Path) -> None:
    """Each image of a batch gets the answer that NumPy computes for it."""
    images = [noise(20, 30, seed) for seed in range(5)]
    answers = Classifier(read_bundle(linear_folder), "cpu").classify(images)
    for image, answer in zip(images, answers, strict=True):
        expected = linear_answer(image, 3)
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
        assert answer.class_id == expected.argmax()


def test_wrong_answer_to_the_self_test_is_rejected(tmp_path: Path) -> None:
    """A model whose self-test differs from the trained network's answer does not serve."""
    bundle = write_linear_bundle(tmp_path / "m", self_test=(0.8, 0.1, 0.1))
    with pytest.raises(InferenceError, match="self-test"):
        Classifier(bundle, "cpu")


def test_weights_in_other_files_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with external weights, which no hash covers, is rejected even if the file exists."""
    model = onnx.load_from_string(linear_model(3, 20, 30))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    bundle = write_linear_bundle(tmp_path / "m", model=path.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="cannot load"):
        Classifier(bundle, "cpu")


def test_manifest_without_the_output_is_rejected(tmp_path: Path) -> None:
    """A threshold for a distance that the graph lacks makes the bundle invalid."""
    bundle = write_linear_bundle(tmp_path / "linear" / "1", distance_threshold=1.0)
    with pytest.raises(BundleError, match="threshold for the output distance"):
        Classifier(bundle, "cpu")


def test_other_preprocessing_is_rejected(tmp_path: Path) -> None:
    """A bundle for another preprocessing is rejected, with both names."""
    folder = write_linear_bundle(tmp_path / "m", preprocessing="another").folder
    with pytest.raises(BundleError, match=r"'another' but this service has 'item-on-black'"):
        load_classifier(Settings(model=folder))
