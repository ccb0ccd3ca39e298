"""The networks: their published sizes, and the layers that they share."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from training.architectures import ARCHITECTURES, count_multiplications, find_architecture
from training.architectures.vgg import load_imagenet_weights
from training.errors import TrainingError

PUBLISHED_PARAMETERS = {
    "cnn-1conv": 693_962,
    "cnn-3conv": 241_546,
    "cnn-4conv": 1_221_546,
    "vgg-like": 7_001_194,
    "cnn-2x128": 940_170,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameter_counts_are_correct(name: str) -> None:
    """Each network has the parameter count in the table, and the published count if one exists."""
    found = find_architecture(name)
    assert found.build((28, 28), 10).count_params() == found.parameters
    assert found.parameters == PUBLISHED_PARAMETERS.get(name, found.parameters)


def test_vgg19_features_are_8192_and_frozen() -> None:
    """The transfer network trains only its head, on 8,192 features."""
    model = find_architecture("vgg19-transfer").build((28, 28), 10)
    head = [tuple(variable.shape) for variable in model.trainable_variables]
    assert head == [(8192, 512), (512,), (512, 10), (10,)]


def test_vgg19_preprocessing_equals_keras() -> None:
    """VGG19 gets Keras' preprocessing of pixels in 0..255, or in 0..1 for the published mistake."""
    image = np.random.default_rng(1).integers(0, 256, (1, 28, 28, 1)).astype(np.float32)
    enlarged = np.repeat(keras.layers.Resizing(150, 150)(image), 3, axis=-1)
    for name, scale in (("vgg19-transfer", 1), ("vgg19-double-preprocessing", 255)):
        model = find_architecture(name).build((28, 28), 10)
        before = keras.Model(model.input, model.get_layer("preprocess").output)
        expected = keras.applications.vgg19.preprocess_input(enlarged / scale)
        np.testing.assert_allclose(before(image), expected, atol=1e-3)


def test_missing_vgg19_weights_are_explained(tmp_path: Path) -> None:
    """The error for unreadable weights names --weights and the network with random features."""
    model = find_architecture("vgg19-transfer").build((28, 28), 10)
    with pytest.raises(TrainingError, match=r"--weights, or train vgg19-random"):
        load_imagenet_weights(model, tmp_path / "nowhere.h5")


def test_network_scales_pixels_and_has_the_requested_shape() -> None:
    """A network scales pixels from 0..255 to 0..1, and has the requested classes and size."""
    model = find_architecture("cnn-1conv").build((32, 24), 3)
    assert model.input_shape == (None, 32, 24, 1)
    assert model.output_shape == (None, 3)
    scale = keras.Model(model.input, model.get_layer("scale").output)
    assert scale(np.full((1, 32, 24, 1), 255.0)).numpy().max() == 1


def test_multiplications_are_counted() -> None:
    """A dense weight counts once, and a convolution's weight once for each position."""
    dense = find_architecture("mlp-64-64").build((28, 28), 10)
    assert count_multiplications(dense) == 784 * 64 + 64 * 64 + 64 * 10
    convolutional = find_architecture("cnn-1conv").build((28, 28), 10)
    expected = 26 * 26 * 9 * 32 + 13 * 13 * 32 * 128 + 128 * 10
    assert count_multiplications(convolutional) == expected


def test_error_for_unknown_architecture_lists_the_known() -> None:
    """An unknown architecture gives an error that lists the known ones."""
    with pytest.raises(TrainingError, match="choose one of mlp-64-64"):
        find_architecture("resnet")


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet-8", 3_000_000), ("resnet-8-tiny", 100_000)]
)
def test_served_networks_are_cheap_on_a_cpu(name: str, parameters: int) -> None:
    """Served networks stay within their parameter and 60 M MAC budgets, and accept odd sizes."""
    model = find_architecture(name).build((28, 28), 10)
    assert model.count_params() < parameters
    assert count_multiplications(model) < 60_000_000
    assert find_architecture(name).build((25, 31), 4).output_shape == (None, 4)
