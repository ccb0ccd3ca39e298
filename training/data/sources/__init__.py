"""The sources of samples: one module for each file format, and the choice by ``--data``."""

from __future__ import annotations

import os
from pathlib import Path

import keras

from training.data.samples import Source
from training.data.sources.csv import TEST_FILE, TRAINING_FILE, CsvPair, find_csv
from training.data.sources.folder import ImageFolder
from training.data.sources.idx import (
    TEST_FILES,
    TRAINING_FILES,
    WHERE_TO_GET_IT,
    IdxFolder,
    find_idx,
)
from training.errors import DataError

# The same rule as in Keras, which chooses its cache folder when it is imported.
KERAS_FOLDER = (
    Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets" / "fashion-mnist"
)

# Without --data, look for Fashion-MNIST in the project, Debian's package and Keras' cache.
STANDARD_FOLDERS = (
    Path("data/fashion-mnist"),
    Path("/usr/share/datasets/fashion-mnist"),
    KERAS_FOLDER,
)


def open_source(data: Path | None, input_size: tuple[int, int] = (28, 28)) -> Source:
    """Open the source that ``--data`` gives. Without ``--data``, find Fashion-MNIST.

    ``data`` is a folder with the IDX files, with the CSV pair, or with one sub-folder of images
    for each class. The word ``keras`` stands for Keras' download. Images from sub-folders become
    model inputs of ``input_size`` (height, width). Other files beside them are logged, once.

    Raises:
        DataError: ``data`` is not a data source, or Fashion-MNIST is neither on this machine nor
            downloadable.
    """
    if data is None:
        return find_fashion_mnist() or IdxFolder(_download())
    if data == Path("keras"):
        return IdxFolder(_download())
    try:
        if _holds_idx(data):
            return IdxFolder(data)
        if any(find_csv(data, name).exists() for name in (TRAINING_FILE, TEST_FILE)):
            return CsvPair(data)
        if data.is_dir() and any(path.is_dir() for path in data.iterdir()):
            images = ImageFolder(data, input_size)
            images.warn_of_other_files()
            return images
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror}") from error
    raise DataError(
        f"{data} is not a data source: pass a folder with {TRAINING_FILES[0]} and the other IDX "
        f"files, with {TRAINING_FILE} and {TEST_FILE}, or with one sub-folder of images for each "
        f"class; for Fashion-MNIST, {WHERE_TO_GET_IT}"
    )


def find_fashion_mnist() -> IdxFolder | None:
    """Find Fashion-MNIST on this machine; None if it is in no standard folder."""
    folder = next(filter(_holds_idx, STANDARD_FOLDERS), None)
    return None if folder is None else IdxFolder(folder)


def _holds_idx(folder: Path) -> bool:
    return any(find_idx(folder, name).exists() for name in TRAINING_FILES + TEST_FILES)


def _download() -> Path:
    """Let Keras download the files into its cache if they are missing. IdxFolder verifies them."""
    try:
        keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise DataError(
            f"Fashion-MNIST is not on this machine and the download failed ({error}); "
            f"{WHERE_TO_GET_IT}"
        ) from error
    return KERAS_FOLDER
