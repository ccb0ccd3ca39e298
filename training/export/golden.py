"""The golden set of the tests: images of the test set with Keras' probabilities."""

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
    """Write ``count`` test images, equally many of each class, with Keras' probabilities.

    The first ``png_count`` images are also written as PNG. The probabilities come from Keras, not
    from ONNX Runtime, because tests compare the served model with the trained one.
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
