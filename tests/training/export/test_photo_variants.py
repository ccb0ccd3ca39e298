"""Variants of a network for photos: other input sizes, and the ways to int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from tests.training.data.photos.folders import choose_names, write_photo, write_worn_folder
from tests.training.fashion_mnist import SampleSource
from training.architectures import find_architecture
from training.architectures.efficientnet_lite import load_lite0_weights, split_outputs
from training.data.photos.collection import PhotoFolders, open_collection
from training.data.samples import Images
from training.export.graph import convert
from training.export.photo_variants import (
    PICTURES_OF_A_KIND,
    WAYS_TO_INT8,
    draw_calibration,
    resize_input,
)
from training.export.variants import quantize
from training.fit.answers import answer, run_graph


def build_network(height: int, width: int) -> Any:
    """Build a network for photos with its ImageNet weights and a head that is always the same."""
    keras.utils.set_random_seed(1)
    network = find_architecture("efficientnet-lite0").build((height, width), 10)
    load_lite0_weights(network, None)
    return split_outputs(network, 1.0)


@pytest.fixture(scope="module")
def model() -> bytes:
    """The graph of a network for photos of 64 x 64 pixels."""
    return bytes(convert(build_network(64, 64), (64, 64, 3)).SerializeToString())


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load a graph."""
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def draw_images(height: int, width: int) -> Images:
    """Draw 24 pictures of noise, each darker or brighter than the others."""
    levels = np.linspace(0.2, 1, 24)[:, None, None, None]
    noise = np.random.default_rng(1).integers(0, 256, (24, height, width, 3))
    return (levels * noise).astype(np.uint8)


def test_resized_graph_answers_like_keras(model: bytes) -> None:
    """A graph that is made to take 96 x 128 pixels equals the Keras network of this size."""
    images = draw_images(96, 128)
    session = open_session(resize_input(model, 96, 128))
    expected, found = answer(build_network(96, 128), images), run_graph(session, images, 10)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-4)
    assert expected.probabilities.std(axis=0).max() > 0.01
    assert session.run(None, {"image": images[:1]})[2].shape == (1, 10, 3, 4)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", WAYS_TO_INT8)
def test_each_way_to_int8_makes_another_graph(model: bytes, name: str) -> None:
    """A variant holds int8 weights, within 7 bits if its name says so, and answers alike."""
    images = draw_images(64, 64)
    quantized = quantize(model, images, **WAYS_TO_INT8[name])
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(quantized).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    largest = max(abs(each.astype(int)).max() for each in weights)
    assert largest == (64 if "7-bit" in name else 127)
    before, after = (run_graph(open_session(each), images, 10) for each in (model, quantized))
    assert 0 < abs(before.probabilities - after.probabilities).mean() < 0.08


def test_calibration_draws_each_kind_equally(tmp_path: Path) -> None:
    """Calibration pictures are training pictures of every kind, the same ones each time."""
    (tmp_path / "photos").mkdir()
    names = choose_names(1, validation=False) + choose_names(1, validation=True)
    for name, colour in zip(names, ("red", "blue"), strict=True):
        write_photo(tmp_path / "photos", name, colour)
    rows = "".join(f"{name},0\n" for name in names)
    (tmp_path / "photos" / "labels.csv").write_text("file,class_id\n" + rows)
    folders = PhotoFolders(tmp_path / "photos", write_worn_folder(tmp_path / "worn"))
    collection = open_collection(folders, SampleSource().training())
    images = draw_calibration(collection, (32, 40))
    assert images.shape == (3 * PICTURES_OF_A_KIND, 32, 40, 3)
    assert (images == draw_calibration(collection, (32, 40))).all()
    reds = images[::3, 12:20, 16:24].mean(axis=(0, 1, 2))  # every third picture is the red photo
    assert reds[0] > 3 * reds[2]
