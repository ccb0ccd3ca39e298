"""The projection: files for TensorBoard's projector, and plots."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.training.fashion_mnist import SampleSource, sample
from training.assess.projection import features, project, sprite
from training.fit.runs import load_model


@pytest.mark.parametrize("of", ["pixels", "features"])
def test_projection_files_agree(tmp_path: Path, small_run: Path, of: str) -> None:
    """Each vector has a label and a place in the sprite, and the configuration names the files."""
    samples = SampleSource().test()
    project(samples, SampleSource().class_names, tmp_path, None if of == "pixels" else small_run)
    vectors = np.loadtxt(tmp_path / "vectors.tsv", delimiter="\t")
    assert vectors.shape == (100, 784 if of == "pixels" else 128)
    labels = (tmp_path / "metadata.tsv").read_text().splitlines()
    assert labels == [SampleSource().class_names[label] for label in samples.labels]
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert all(f'"{name}"' in config for name in ("vectors.tsv", "metadata.tsv", "sprite.png"))
    assert keras.utils.img_to_array(keras.utils.load_img(tmp_path / "sprite.png")).shape[:2] == (
        280,
        280,
    )
    assert {path.name for path in tmp_path.glob("*.png")} == {"sprite.png", "pca.png", "tsne.png"}


def test_sprite_tiles_images_row_by_row() -> None:
    """Image n is in row n // side and column n % side, inverted, and the rest is white."""
    images = sample().images[:7]
    tiled = sprite(images)
    assert tiled.shape == (84, 84)
    for number, image in enumerate(images):
        row, column = divmod(number, 3)
        assert (
            tiled[28 * row : 28 * row + 28, 28 * column : 28 * column + 28] == 255 - image
        ).all()
    assert (tiled[56:, 28:] == 255).all()


def test_features_are_the_input_of_the_last_layer(small_run: Path) -> None:
    """The last dense layer maps the features to the model's logits."""
    model, images = load_model(small_run), sample().images[:20]
    weights, bias = model.layers[-2].get_weights()
    logits = model.predict(images[..., None].astype(np.float32), verbose=0)
    np.testing.assert_allclose(features(small_run, images) @ weights + bias, logits, atol=1e-3)
