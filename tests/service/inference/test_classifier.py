"""The classifier: its answers, its device, and the bundles that it rejects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.bundle import read_bundle
from service.errors import BundleError, DeviceError, InferenceError
from service.inference.classifier import MAX_BATCH, Classifier, load_classifier
from tests.service.bundles import (
    PHOTO_SIZE,
    linear_answer,
    linear_model,
    photo_answer,
    photo_model,
    write_linear_bundle,
    write_photo_bundle,
)
from tests.service.images import noise

COUNTED = 1e-4


def counting_model() -> bytes:
    """Serialize ``linear_model`` with COUNTED times the size of its batch added to its answers."""
    model = onnx.load_from_string(linear_model(3, 20, 30))
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["image"], ["size"], start=0, end=1),
            helper.make_node("Cast", ["size"], ["count"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["count", "counted"], ["added"]),
            helper.make_node("Add", ["plain", "added"], ["probabilities"]),
        ]
    )
    model.graph.initializer.append(
        numpy_helper.from_array(np.array([COUNTED], np.float32), "counted")
    )
    content: bytes = model.SerializeToString()
    return content


def test_batch_is_answered_in_order(linear_folder: Path) -> None:
    """Each image of a batch gets the answer that NumPy computes for it."""
    images = [noise(20, 30, seed) for seed in range(5)]
    answers = Classifier(read_bundle(linear_folder), "cpu").classify(images)
    for image, answer in zip(images, answers, strict=True):
        expected = linear_answer(image, 3)
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
        assert answer.class_id == expected.argmax()


@pytest.mark.parametrize("count", [1, 5, MAX_BATCH])
def test_every_batch_on_a_gpu_has_the_same_size(tmp_path: Path, count: int) -> None:
    """On a GPU the session always gets MAX_BATCH images, and each image its own answer.

    The model adds the size of its batch to the answers.
    """
    folder = write_linear_bundle(tmp_path / "1", model=counting_model()).folder
    images = [noise(20, 30, seed) for seed in range(count)]
    classifier = Classifier(read_bundle(folder), "cpu")
    found_on_cpu = classifier.classify(images)
    classifier.device = "cuda"
    found_on_gpu = classifier.classify(images)
    for image, on_cpu, on_gpu in zip(images, found_on_cpu, found_on_gpu, strict=True):
        added = np.array([on_cpu.probabilities, on_gpu.probabilities]) - linear_answer(image, 3)
        np.testing.assert_allclose(added[0], COUNTED * count, atol=1e-5)
        np.testing.assert_allclose(added[1], COUNTED * MAX_BATCH, atol=1e-5)


@pytest.mark.parametrize(("version", "warnings"), [("1", 0), ("2", 1)])
def test_folder_of_another_version_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, version: str, warnings: int
) -> None:
    """A version that was copied to the folder of another one serves, with a warning."""
    write_linear_bundle(tmp_path / "1", version=version)
    assert load_classifier(tmp_path, "cpu").manifest.version == version
    assert caplog.text.count(f"{tmp_path / '1'} holds version 2") == warnings


def test_cuda_is_an_error_without_a_gpu(linear_folder: Path) -> None:
    """Without a GPU, device ``cuda`` is an error; the classifier does not fall back to the CPU."""
    bundle = read_bundle(linear_folder)
    automatic = Classifier(bundle, "auto")
    assert automatic.device == ("cuda" if "CUDAExecutionProvider" in automatic.providers else "cpu")
    if automatic.device == "cuda":
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="SERVICE_DEVICE"):
        Classifier(bundle, "cuda")


@pytest.mark.parametrize(
    ("model", "manifest", "message"),
    [
        (b"no onnx", {}, "cannot load"),
        (linear_model(4, 20, 30), {}, "3 classes"),
        (linear_model(3, 21, 30), {}, r"21, 30.*20, 30"),
        (linear_model(3, 20, 30, input_name="picture"), {}, "picture"),
        (None, {"class_names": ("one", "two"), "self_test": (0.5, 0.5)}, "2 classes"),
    ],
)
def test_model_that_contradicts_its_manifest_is_rejected(
    tmp_path: Path, model: bytes | None, manifest: dict[str, object], message: str
) -> None:
    """A model whose input, size or class count differs from its manifest is rejected."""
    bundle = write_linear_bundle(tmp_path / "linear", model=model, **manifest)
    with pytest.raises(BundleError, match=message):
        Classifier(bundle, "cpu")


def test_photos_are_answered_in_order(photo_folder: Path) -> None:
    """Each photo of a batch gets its own answer, distance and activations."""
    random = np.random.default_rng(0)
    photos = [
        random.integers(0, brightest, (*PHOTO_SIZE, 3), np.uint8) for brightest in (9, 99, 256)
    ]
    for photo, answer in zip(
        photos, Classifier(read_bundle(photo_folder), "cpu").classify(photos), strict=True
    ):
        np.testing.assert_allclose(answer.probabilities, photo_answer(photo), atol=1e-5)
        assert answer.distance == pytest.approx(photo.mean() / 255, abs=1e-5)
        assert answer.activations is not None
        np.testing.assert_allclose(
            answer.activations.mean(axis=(1, 2)), 10 * photo.mean(axis=(0, 1)) / 255, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("model", "manifest", "message"),
    [
        (linear_model(3, *PHOTO_SIZE), {}, r"\[24, 32\].*letterbox.*\[24, 32, 3\]"),
        (None, {"preprocessing": "item-on-black"}, r"\[24, 32, 3\].*on-black.*\[24, 32\]"),
        (photo_model(32, 24), {}, r"\[32, 24, 3\].*\[24, 32, 3\]"),
        (photo_model(*PHOTO_SIZE), {"class_names": ("a", "b"), "self_test": (1, 0)}, "2 classes"),
    ],
)
def test_photo_model_that_contradicts_its_manifest_is_rejected(
    tmp_path: Path, model: bytes | None, manifest: dict[str, object], message: str
) -> None:
    """A photo model whose input or class count differs from its manifest is rejected.

    The error names both values.
    """
    bundle = write_photo_bundle(tmp_path / "colours", model=model, **manifest)
    with pytest.raises(BundleError, match=message):
        Classifier(bundle, "cpu")


def test_activations_of_another_shape_are_rejected(tmp_path: Path) -> None:
    """The output ``activations`` needs a map for each class. The error names both shapes."""
    model = onnx.load_from_string(linear_model(3, 20, 30, with_distance=True))
    model.graph.output[1].name = model.graph.node[-1].output[0] = "activations"
    bundle = write_linear_bundle(tmp_path / "linear", model=model.SerializeToString())
    with pytest.raises(BundleError, match=r"\[\] .*3 classes.*\[3, height, width\]"):
        Classifier(bundle, "cpu")


def test_wrong_answer_to_the_self_test_is_rejected(tmp_path: Path) -> None:
    """A model whose self-test differs from the trained network's answer is rejected."""
    bundle = write_linear_bundle(tmp_path / "m", self_test=(0.8, 0.1, 0.1))
    with pytest.raises(InferenceError, match="self-test"):
        Classifier(bundle, "cpu")


def test_model_that_answers_nan_is_rejected(tmp_path: Path) -> None:
    """A model whose probabilities are not numbers fails its self-test."""
    model = onnx.load_from_string(linear_model(3, 20, 30))
    (bias,) = (each for each in model.graph.initializer if each.name == "bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), "bias"))
    bundle = write_linear_bundle(tmp_path / "m", model=model.SerializeToString())
    with pytest.raises(InferenceError, match="differs from the manifest by nan"):
        Classifier(bundle, "cpu")


def test_weights_in_other_files_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with weights in another file, which no hash covers, is rejected."""
    model = onnx.load_from_string(linear_model(3, 20, 30))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    bundle = write_linear_bundle(tmp_path / "m", model=path.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="cannot load"):
        Classifier(bundle, "cpu")


def test_model_without_its_distance_output_is_rejected(tmp_path: Path) -> None:
    """A distance threshold is invalid if the model has no output ``distance``."""
    bundle = write_linear_bundle(tmp_path / "linear" / "1", distance_threshold=1.0)
    with pytest.raises(BundleError, match="threshold for the output distance"):
        Classifier(bundle, "cpu")


def test_other_preprocessing_is_rejected(tmp_path: Path) -> None:
    """A bundle for an unknown preprocessing is rejected. The error names all known ones."""
    folder = write_linear_bundle(tmp_path / "m", preprocessing="another").folder
    with pytest.raises(BundleError, match=r"'another'; this release knows item-on-black, letterb"):
        load_classifier(folder, "cpu")
