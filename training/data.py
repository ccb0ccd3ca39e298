"""Own the choice of a data source: what ``--data`` means and where Fashion-MNIST is looked for."""

from __future__ import annotations

from pathlib import Path

import keras

from training.errors import DataError
from training.samples import Source
from training.sources.idx import TEST_FILES, TRAINING_FILES, WHERE_TO_GET_IT, IdxFolder

# Where Fashion-MNIST is looked for without --data: the project, Debian's package, Keras' cache.
STANDARD_FOLDERS = (
    Path("data/fashion-mnist"),
    Path("/usr/share/datasets/fashion-mnist"),
    Path("~/.keras/datasets/fashion-mnist"),
)


def open_source(data: Path | None) -> Source:
    """Find the data that ``--data`` names, or Fashion-MNIST where it is not given.

    Raises:
        DataError: ``data`` is not a data source, or Fashion-MNIST is nowhere and cannot be downloaded.
    """
    if data is None:
        return IdxFolder(next((f for f in map(Path.expanduser, STANDARD_FOLDERS) if _is_idx(f)), None) or _download())
    if not data.exists():
        raise DataError(f"{data} does not exist; {WHERE_TO_GET_IT}")
    return IdxFolder(data)


def _is_idx(folder: Path) -> bool:
    return any((folder / name).exists() for name in TRAINING_FILES + TEST_FILES)


def _download() -> Path:
    try:
        keras.datasets.fashion_mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise DataError(f"Fashion-MNIST is not here and cannot be downloaded ({error}); {WHERE_TO_GET_IT}") from error
    return Path("~/.keras/datasets/fashion-mnist").expanduser()
