"""Variants of a network for photos: other input sizes, and the ways to int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.training.data.photos.folders import choose_names, write_photo, write_worn_folder
from tests.training.fashion_mnist import SampleSource
from training.architectures import find_architecture
from training.architectures.efficientnet_lite import split_outputs
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

LITE0 = find_architecture("efficientnet-lite0")


@pytest.fixture(scope="module")
def model() -> bytes:
    """The graph of a network for photos of 32 x 32 pixels, with its first weights."""
    network = split_outputs(LITE0.build((32, 32), 10), 1.0)
    return bytes(convert(network, (32, 32, 3)).SerializeToString())


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load a graph."""
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def draw_images(height: int, width: int) -> Images:
    """Draw 24 pictures of noise, each darker or brighter than the others."""
    levels = np.linspace(0.2, 1, 24)[:, None, None, None]
    noise = np.random.default_rng(1).integers(0, 256, (24, height, width, 3))
    return (levels * noise).astype(np.uint8)


def test_resized_graph_answers_like_keras() -> None:
    """A graph that takes 64 x 96 pixels equals the Keras network of this size."""
    small, large = LITE0.build((32, 32), 10), LITE0.build((64, 96), 10)
    large.set_weights(small.get_weights())
    images = draw_images(64, 96)
    graph = convert(split_outputs(small, 1.0), (32, 32, 3)).SerializeToString()
    session = open_session(resize_input(graph, 64, 96))
    expected = answer(split_outputs(large, 1.0), images)
    found = run_graph(session, images, 10)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.distances, expected.distances, atol=1e-4)
    assert session.run(None, {"image": images[:1]})[2].shape == (1, 10, 2, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", WAYS_TO_INT8)
def test_each_way_to_int8_makes_another_graph(model: bytes, name: str) -> None:
    """A variant holds int8 weights, within 7 bits if its name says so, and answers alike."""
    images = draw_images(32, 32)
    quantized = quantize(model, images, **WAYS_TO_INT8[name])
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(quantized).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    largest = max(abs(each.astype(int)).max() for each in weights)
    assert largest == (64 if "7-bit" in name else 127)
    before, after = (run_graph(open_session(each), images, 10) for each in (model, quantized))
    assert 0 < abs(before.probabilities - after.probabilities).max() < 0.3


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
