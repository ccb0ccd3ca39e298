"""The golden set of the tests: images of the test set, and the answers of a model to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnxruntime

from service.bundle import is_bundle, read_bundle
from service.imaging.model_input import InputSpec
from training.assess.calibration import load_calibrated
from training.data.photos.inputs import to_inputs
from training.data.samples import Images, Source
from training.data.sources.idx import write_idx
from training.fit.answers import Probabilities, predict, run_graph
from training.fit.runs import log_opening, read_config

SAMPLE_SEED = 2017


def write_golden(
    model: Path, source: Source, folder: Path, name: str, count: int, png_count: int
) -> None:
    """Write ``count`` test images, equally many of each class, and the model's probabilities.

    The first ``png_count`` images are also written as PNG. The probabilities of a run come from
    Keras, those of a bundle from ONNX Runtime. Their file is called ``NAME.npy``.
    """
    answer = _load(model)
    if not is_bundle(model):
        log_opening(model, "golden set")
    test = source.test()
    _, sample = test.split(count / len(test), SAMPLE_SEED)
    folder.mkdir(parents=True, exist_ok=True)
    labels = sample.labels.astype(np.uint8)
    write_idx(folder / "images-idx3-ubyte.gz", sample.images)
    write_idx(folder / "labels-idx1-ubyte.gz", labels)
    np.save(folder / f"{name}.npy", answer(sample.images))
    for number, (image, label) in enumerate(zip(sample.images[:png_count], labels, strict=False)):
        keras.utils.save_img(folder / f"{number:04}_{label}.png", image[..., None], scale=False)


def _load(model: Path) -> Callable[[Images], Probabilities]:
    if not is_bundle(model):
        network, spec = load_calibrated(model), read_config(model).input_spec
        return lambda images: predict(network, to_inputs(images, spec))
    bundle = read_bundle(model)
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    spec = InputSpec(bundle.manifest.preprocessing, bundle.manifest.input_size)
    return lambda images: run_graph(session, to_inputs(images, spec), 500).probabilities
