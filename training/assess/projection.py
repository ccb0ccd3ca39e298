"""Own the projection of images into the plane: the log of TensorBoard's embedding projector, PCA and t-SNE."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from training.data.samples import Images, Samples
from training.fit.runs import load_model
from training.plots import plot_points

# TensorBoard takes sprites of up to 8192 x 8192 pixels.
SPRITE_SIDE_PIXELS = 8192


def project(samples: Samples, class_names: tuple[str, ...], folder: Path, run: Path | None) -> None:
    """Write the projector's log and ``pca.png`` and ``tsne.png`` of raw pixels, or of a run's last features.

    ``tensorboard --logdir FOLDER`` shows the log; writing it needs no TensorBoard, the files are text and a picture.
    """
    vectors = (
        samples.images.reshape(len(samples), -1) / 255
        if run is None
        else features(run, samples.images)
    )
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "vectors.tsv", vectors, fmt="%.5g", delimiter="\t")
    (folder / "metadata.tsv").write_text(
        "".join(f"{class_names[label]}\n" for label in samples.labels), "utf-8"
    )
    keras.utils.save_img(folder / "sprite.png", sprite(samples.images)[..., None], scale=False)
    height, width = samples.input_size
    (folder / "projector_config.pbtxt").write_text(
        "embeddings {\n"
        f'  tensor_name: "{"pixels" if run is None else run.name}"\n'
        '  tensor_path: "vectors.tsv"\n'
        '  metadata_path: "metadata.tsv"\n'
        f'  sprite {{ image_path: "sprite.png" single_image_dim: {width} single_image_dim: {height} }}\n'
        "}\n",
        "utf-8",
    )
    reduced = PCA(min(50, *vectors.shape), random_state=0).fit_transform(vectors)
    plot_points(folder / "pca.png", reduced[:, :2], samples.labels, class_names)
    plane = TSNE(perplexity=min(30, len(samples) / 4), random_state=0).fit_transform(reduced)
    plot_points(folder / "tsne.png", plane, samples.labels, class_names)


def features(run: Path, images: Images) -> NDArray[np.float32]:
    """Compute what a run's network feeds its last dense layer: float32 ``[N, features]``."""
    model = load_model(run)
    last = next(layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense))
    extractor = keras.Model(model.input, last.input)
    values = extractor.predict(images[..., None].astype(np.float32), batch_size=500, verbose=0)
    return np.asarray(values, dtype=np.float32)


def sprite(images: Images) -> Images:
    """Tile images row by row into a square of as many columns as rows, inverted: dark items on white."""
    count, height, width = images.shape
    side = int(np.ceil(np.sqrt(count)))
    tiles = np.zeros((side * side, height, width), np.uint8)
    tiles[:count] = images
    return np.asarray(
        255 - tiles.reshape(side, side, height, width).swapaxes(1, 2).reshape(side * height, -1)
    )


def largest_count(input_size: tuple[int, int]) -> int:
    """Return how many images a sprite can hold."""
    return (SPRITE_SIDE_PIXELS // max(input_size)) ** 2
