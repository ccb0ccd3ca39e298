"""The projection of images to two dimensions: a log for TensorBoard's projector, PCA and t-SNE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from training.data.samples import Images, Samples
from training.fit.runs import load_model
from training.plots import plot_points

# TensorBoard accepts sprites of up to 8192 x 8192 pixels.
SPRITE_SIDE_PIXELS = 8192


def project(samples: Samples, class_names: tuple[str, ...], folder: Path, run: Path | None) -> None:
    """Project a run's last features; write the projector's log, ``pca.png`` and ``tsne.png``.

    Without a run, project raw pixels. ``tensorboard --logdir FOLDER`` shows the log. The log
    consists of text files and a picture, so this function does not need TensorBoard.
    """
    vectors: NDArray[Any] = samples.images.reshape(len(samples), -1) / 255
    if run is not None:
        vectors = features(run, samples.images)
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "vectors.tsv", vectors, fmt="%.5g", delimiter="\t")
    lines = "".join(f"{class_names[label]}\n" for label in samples.labels)
    (folder / "metadata.tsv").write_text(lines, "utf-8")
    keras.utils.save_img(folder / "sprite.png", sprite(samples.images)[..., None], scale=False)
    configuration = _configure("pixels" if run is None else run.name, samples.input_size)
    (folder / "projector_config.pbtxt").write_text(configuration, "utf-8")
    reduced = PCA(min(50, *vectors.shape), random_state=0).fit_transform(vectors)
    plot_points(folder / "pca.png", reduced[:, :2], samples.labels, class_names)
    plane = TSNE(perplexity=min(30, len(samples) / 4), random_state=0).fit_transform(reduced)
    plot_points(folder / "tsne.png", plane, samples.labels, class_names)


def _configure(name: str, input_size: tuple[int, int]) -> str:
    height, width = input_size
    dimensions = f"single_image_dim: {width} single_image_dim: {height}"
    return (
        "embeddings {\n"
        f'  tensor_name: "{name}"\n'
        '  tensor_path: "vectors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n'
        f'  sprite {{ image_path: "sprite.png" {dimensions} }}\n'
        "}\n"
    )


def features(run: Path, images: Images) -> NDArray[np.float32]:
    """Compute the input of the last dense layer of a run's network: float32 ``[N, features]``."""
    model = load_model(run)
    last = next(layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense))
    extractor = keras.Model(model.input, last.input)
    values = extractor.predict(images[..., None].astype(np.float32), batch_size=500, verbose=0)
    return np.asarray(values, dtype=np.float32)


def sprite(images: Images) -> Images:
    """Tile the images row by row into a square, inverted: dark items on white."""
    count, height, width = images.shape
    side = int(np.ceil(np.sqrt(count)))
    tiles = np.zeros((side * side, height, width), np.uint8)
    tiles[:count] = images
    rows = tiles.reshape(side, side, height, width).swapaxes(1, 2)
    return np.asarray(255 - rows.reshape(side * height, -1))


def largest_count(input_size: tuple[int, int]) -> int:
    """Return the number of images that fit into a sprite."""
    return (SPRITE_SIDE_PIXELS // max(input_size)) ** 2
