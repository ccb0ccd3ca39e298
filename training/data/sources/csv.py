"""Own the CSV form of Fashion-MNIST as Kaggle has it: label and 784 pixels a line. Must never know who reads it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from training.data.samples import Samples
from training.data.sources.idx import CLASS_NAMES
from training.errors import DataError

SIDE_PIXELS = 28
COLUMNS = 1 + SIDE_PIXELS**2
TRAINING_FILE = "fashion-mnist_train.csv"
TEST_FILE = "fashion-mnist_test.csv"


@dataclass(frozen=True)
class CsvPair:
    """A folder with ``fashion-mnist_train.csv`` and ``fashion-mnist_test.csv``, each plain or with ``.gz`` after it."""

    folder: Path
    training_count: int = 60_000
    test_count: int = 10_000

    @property
    def class_names(self) -> tuple[str, ...]:
        """The ten class names of Fashion-MNIST."""
        return CLASS_NAMES

    def __str__(self) -> str:
        return "Fashion-MNIST, CSV files"

    def training(self) -> Samples:
        """Read the training images."""
        return read_csv(find_csv(self.folder, TRAINING_FILE), self.training_count)

    def test(self) -> Samples:
        """Read the test images."""
        return read_csv(find_csv(self.folder, TEST_FILE), self.test_count)


def find_csv(folder: Path, name: str) -> Path:
    """Find a CSV file, plain or compressed; the plain name where there is neither."""
    compressed = folder / f"{name}.gz"
    return compressed if compressed.exists() else folder / name


def read_csv(path: Path, count: int) -> Samples:
    """Read ``count`` images; the first line may be a header.

    Raises:
        DataError: The file is missing or damaged, or a line has other columns, labels or pixels than allowed.
    """
    try:
        with _open(path) as file:
            header = not file.readline().partition(",")[0].strip().isdecimal()
        with _open(path) as file:
            values = np.loadtxt(
                file, np.int64, delimiter=",", skiprows=int(header), ndmin=2, comments=None
            )
    except (EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise DataError(_find_fault(path) or f"{path} cannot be read: {error}") from error
    labels, pixels = values[:, 0], values[:, 1:]
    if (
        values.shape[1] != COLUMNS
        or not _within(labels, len(CLASS_NAMES))
        or not _within(pixels, 256)
    ):
        raise DataError(_find_fault(path) or f"{path} holds a value that is not allowed")
    if len(values) != count:
        raise DataError(
            f"{path} holds {len(values):,} images, expected {count:,}: it may be truncated, get it again"
        )
    return Samples(pixels.astype(np.uint8).reshape(-1, SIDE_PIXELS, SIDE_PIXELS), labels)


def _within(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]], limit: int) -> bool:
    return values.size == 0 or (values.min() >= 0 and values.max() < limit)


def _open(path: Path) -> IO[str]:
    return (
        gzip.open(path, "rt", encoding="ascii")
        if path.suffix == ".gz"
        else path.open(encoding="ascii")
    )


def _find_fault(path: Path) -> str | None:
    """Describe the first line that is not as it should be; slow, so done only where one is known to be."""
    with _open(path) as file:
        return next(_faults(path, file), None)


def _faults(path: Path, lines: IO[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        values = [value.strip() for value in line.split(",")]
        if number == 1 and not values[0].isdecimal():
            continue
        if len(values) != COLUMNS:
            yield f"{path}, line {number}: {len(values)} columns, expected {COLUMNS} (the label and 784 pixels)"
        elif not (values[0].isdecimal() and int(values[0]) < len(CLASS_NAMES)):
            yield f"{path}, line {number}: label {values[0]!r}, allowed are 0 to {len(CLASS_NAMES) - 1}"
        else:
            for column, value in enumerate(values[1:], 2):
                if not (value.isdecimal() and int(value) < 256):
                    yield f"{path}, line {number}, column {column}: pixel {value!r}, allowed are 0 to 255"
