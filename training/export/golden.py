"""Own the golden set of the tests: real test images and the probabilities that Keras gives them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from training.assess.calibration import load_calibrated
from training.data.samples import Source
from training.data.sources.idx import write_idx
from training.fit.answers import predict

SAMPLE_SEED = 2017


def write_golden(run: Path, source: Source, folder: Path, count: int, png_count: int) -> None:
    """Write ``count`` test images, as many of each class, with Keras' probabilities; the first also as PNG.

    The probabilities are Keras' own, never ONNX Runtime's: what serves is compared with what was trained.
    """
    test = source.test()
    _, sample = test.split(count / len(test), SAMPLE_SEED)
    folder.mkdir(parents=True, exist_ok=True)
    labels = sample.labels.astype(np.uint8)
    write_idx(folder / "images-idx3-ubyte.gz", sample.images)
    write_idx(folder / "labels-idx1-ubyte.gz", labels)
    np.save(folder / "probabilities.npy", predict(load_calibrated(run), sample.images))
    for number, (image, label) in enumerate(zip(sample.images[:png_count], labels, strict=False)):
        keras.utils.save_img(folder / f"{number:04}_{label}.png", image[..., None], scale=False)
