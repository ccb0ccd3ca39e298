"""A folder of the user's own images, with one sub-folder for each class."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import ServiceError
from service.imaging import ITEM_ON_BLACK, InputSpec, read_image
from training.data.samples import Images, Samples
from training.errors import DataError

# Formats that the service does not read are here too: an error names such a file.
IMAGE_SUFFIXES = (
    ".apng",
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pjp",
    ".pjpeg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)
MAX_PIXELS = 100_000_000
TEST_FRACTION = 1 / 6
TEST_SEED = 13


# Files and folders that an operating system or a NAS adds without being asked.
JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
TRAINING_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing")
VALIDATION_NAMES = ("val", "valid", "validation")
MOST_NAMED = 10  # files that an error or a warning names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFolder:
    """A folder with one sub-folder of images for each class.

    The class folders may also be inside two folders ``train`` and ``test`` (or ``val``). Without
    these two, the test set is a sixth of each class, drawn with a fixed seed. Images in sub-folders
    of a class folder belong to the class. The service's preprocessing turns each image into a model
    input. Files whose suffix is not one of ``IMAGE_SUFFIXES`` are passed over. ``input_size`` is
    (height, width) in pixels.
    """

    folder: Path
    input_size: tuple[int, int]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders in alphabetical order."""
        return tuple(path.name for path in _list(self._training_folder) if path.is_dir())

    def __str__(self) -> str:
        return f"images of {len(self.class_names)} classes"

    def training(self) -> Samples:
        """Read the images for training."""
        samples = self._read(self._training_folder)
        return samples if self._test_folder else samples.split(TEST_FRACTION, TEST_SEED)[0]

    def test(self) -> Samples:
        """Read the images for testing. A folder ``test`` may lack a class."""
        if self._test_folder:
            return self._read(self._test_folder, may_lack_classes=True)
        return self._read(self._training_folder).split(TEST_FRACTION, TEST_SEED)[1]

    def warn_of_other_files(self) -> None:
        """Log which files of the class folders are passed over."""
        parts = [part for part in (self._training_folder, self._test_folder) if part]
        classes = [path for part in parts for path in _list(part) if path.is_dir()]
        others = [path for name in classes for path in _walk(name) if not _is_image(path)]
        if others:
            names = [path.relative_to(self.folder).as_posix() for path in others]
            logger.warning(
                "%s: passed over %d files that are not named like images: %s",
                self.folder,
                len(others),
                _join(names, ", "),
            )

    @property
    def _training_folder(self) -> Path:
        return self._find(TRAINING_NAMES) or self.folder

    @property
    def _test_folder(self) -> Path | None:
        """The folder of test images, if there is one beside a folder of training images.

        Raises:
            DataError: Both ``test`` and ``val`` exist, and one would be left out.
        """
        test, validation = self._find(TEST_NAMES), self._find(VALIDATION_NAMES)
        if test and validation and self._find(TRAINING_NAMES):
            raise DataError(
                f"{self.folder} holds {validation.name} beside {test.name}; training takes its "
                f"validation images from the training folder: move the images of {validation.name} "
                "there, or remove it"
            )
        return test or validation if self._find(TRAINING_NAMES) else None

    def _find(self, names: tuple[str, ...]) -> Path | None:
        folders = (path for path in _list(self.folder) if path.is_dir())
        return next((path for path in folders if path.name.lower() in names), None)

    def _read(self, folder: Path, *, may_lack_classes: bool = False) -> Samples:
        names = self.class_names
        if len(names) < 2:
            raise DataError(
                f"{folder} holds {len(names)} sub-folders: create one for each class, at least two"
            )
        _check_entries(folder, names)
        paths = [list(filter(_is_image, _walk(folder / name))) for name in names]
        for name, found in zip(names, paths, strict=True):
            if not found and not may_lack_classes:
                raise DataError(f"{folder / name} holds no images of class {name!r}")
        if not any(paths):
            raise DataError(f"{folder} holds no images")
        images = _read_files([path for found in paths for path in found], self.input_size)
        return Samples(images, np.repeat(np.arange(len(names)), [len(found) for found in paths]))


def _check_entries(folder: Path, names: tuple[str, ...]) -> None:
    """Check that a folder holds no folder of another class, and no image beside the folders."""
    entries = _list(folder)
    unknown = {path.name for path in entries if path.is_dir()} - set(names)
    if unknown:
        raise DataError(
            f"{folder} holds {', '.join(sorted(unknown))}: "
            "the training folder has no such classes; remove them or add them to train"
        )
    stray = [path.name for path in entries if _is_image(path) and not path.is_dir()]
    if stray:
        raise DataError(
            f"{folder} holds {len(stray)} images beside its sub-folders, such as {stray[0]}; "
            "move each into the sub-folder of its class"
        )


def _list(folder: Path) -> list[Path]:
    """List a folder in order, without hidden files and JUNK."""
    try:
        return sorted(path for path in folder.iterdir() if not _is_junk(path.name))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _join(texts: Sequence[str], separator: str) -> str:
    """Join the first MOST_NAMED texts and say how many more there are."""
    rest = len(texts) - MOST_NAMED
    return separator.join([*texts[:MOST_NAMED], *([f"and {rest} more"] if rest > 0 else [])])


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all files below ``folder`` in order; nothing if it does not exist."""
    if not folder.exists():
        return
    for path in _list(folder):
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _read_files(paths: list[Path], input_size: tuple[int, int]) -> Images:
    images, faults = [], []
    for path in paths:
        try:
            images.append(_read_file(path, input_size))
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError(_join(faults, "; "))
    return np.stack(images)


def _read_file(path: Path, input_size: tuple[int, int]) -> Images:
    try:
        return read_image(path.read_bytes(), InputSpec(ITEM_ON_BLACK, input_size), MAX_PIXELS).image
    except (OSError, ServiceError) as error:
        raise DataError(f"{path} is not a readable image: {error}") from error
