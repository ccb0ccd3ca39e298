"""A folder of the user's own images, with one sub-folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import ServiceError
from service.imaging import ITEM_ON_BLACK, InputSpec, read_image
from training.data.samples import Images, Samples
from training.errors import DataError

MAX_PIXELS = 100_000_000
TEST_FRACTION = 1 / 6
TEST_SEED = 13


@dataclass(frozen=True)
class ImageFolder:
    """A folder with one sub-folder of images for each class.

    The sub-folders may also be inside two folders ``train`` and ``test``. Without these two, the
    test set is a sixth of each class, drawn with a fixed seed. The service's preprocessing turns
    each image into a model input. ``input_size`` is (height, width) in pixels.
    """

    folder: Path
    input_size: tuple[int, int]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the sub-folders in alphabetical order."""
        return tuple(path.name for path in _list(self._training_folder) if path.is_dir())

    def __str__(self) -> str:
        return f"images of {len(self.class_names)} classes"

    def training(self) -> Samples:
        """Read the images for training."""
        samples = self._read(self._training_folder)
        return samples if self._has_test else samples.split(TEST_FRACTION, TEST_SEED)[0]

    def test(self) -> Samples:
        """Read the images for testing."""
        samples = self._read(self.folder / "test" if self._has_test else self.folder)
        return samples if self._has_test else samples.split(TEST_FRACTION, TEST_SEED)[1]

    @property
    def _has_test(self) -> bool:
        return (self.folder / "train").is_dir() and (self.folder / "test").is_dir()

    @property
    def _training_folder(self) -> Path:
        return self.folder / "train" if self._has_test else self.folder

    def _read(self, folder: Path) -> Samples:
        names = self.class_names
        if len(names) < 2:
            raise DataError(
                f"{folder} holds {len(names)} sub-folders: create one for each class, at least two"
            )
        unknown = {path.name for path in _list(folder) if path.is_dir()} - set(names)
        if unknown:
            raise DataError(
                f"{folder} holds {', '.join(sorted(unknown))}: "
                "the training folder has no such classes; remove them or add them to train"
            )
        images = [_read_class(folder / name, self.input_size) for name in names]
        labels = np.repeat(np.arange(len(names)), [len(found) for found in images])
        return Samples(np.concatenate(images), labels)


def _list(folder: Path) -> list[Path]:
    """List a folder in order, without the hidden files of file managers and notebooks."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read_class(folder: Path, input_size: tuple[int, int]) -> Images:
    paths = [path for path in _list(folder) if path.is_file()]
    if not paths:
        raise DataError(f"{folder} holds no images of class {folder.name!r}")
    return np.stack([_read_file(path, input_size) for path in paths])


def _read_file(path: Path, input_size: tuple[int, int]) -> Images:
    try:
        return read_image(path.read_bytes(), InputSpec(ITEM_ON_BLACK, input_size), MAX_PIXELS).image
    except (OSError, ServiceError) as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
