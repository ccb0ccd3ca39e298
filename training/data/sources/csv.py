"""Fashion-MNIST as CSV files, as on Kaggle: a label and 784 pixels on each line."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from training.data.samples import Samples
from training.data.sources.idx import CLASS_NAMES
from training.errors import DataError

SIDE_PIXELS = 28
COLUMNS = 1 + SIDE_PIXELS**2
TRAINING_FILE = "fashion-mnist_train.csv"
TEST_FILE = "fashion-mnist_test.csv"


@dataclass(frozen=True)
class CsvPair:
    """A folder with ``fashion-mnist_train.csv`` and ``fashion-mnist_test.csv``, plain or gzipped.

    A gzipped file has ``.gz`` after its name.
    """

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
    """Return the path of a gzipped CSV file if it exists, otherwise of the plain file."""
    compressed = folder / f"{name}.gz"
    return compressed if compressed.exists() else folder / name


def read_csv(path: Path, count: int) -> Samples:
    """Read ``count`` images. The first line may be a header.

    Raises:
        DataError: The file is missing or damaged, does not hold ``count`` images, or has a line
            with a wrong number of columns, a wrong label or a wrong pixel.
    """
    values = _read_values(path)
    labels, pixels = values[:, 0], values[:, 1:]
    is_allowed = _within(labels, len(CLASS_NAMES)) and _within(pixels, 256)
    if values.shape[1] != COLUMNS or not is_allowed:
        raise DataError(_find_fault(path) or f"{path} holds a value that is not allowed")
    if len(values) != count:
        raise DataError(
            f"{path} holds {len(values):,} images, expected {count:,}: "
            "the file may be truncated, download it again"
        )
    return Samples(pixels.astype(np.uint8).reshape(-1, SIDE_PIXELS, SIDE_PIXELS), labels)


def _read_values(path: Path) -> NDArray[np.int64]:
    """Read all numbers of a file: one row for each line after the header."""
    try:
        with _open(path) as file:
            has_header = not file.readline().partition(",")[0].strip().isdecimal()
        with _open(path) as file:
            return np.loadtxt(
                file, np.int64, delimiter=",", skiprows=int(has_header), ndmin=2, comments=None
            )
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8 or UTF-16: {error.reason}") from error
    except ValueError as error:
        raise DataError(_find_fault(path) or f"{path} cannot be read: {error}") from error


def _within(values: NDArray[np.int64], limit: int) -> bool:
    return values.size == 0 or bool(values.min() >= 0 and values.max() < limit)


def _open(path: Path) -> IO[str]:
    """Open a file in ASCII, or in UTF-8 or UTF-16 with a byte order mark."""
    with _open_bytes(path) as file:
        start = file.read(2)
    is_utf_16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-16" if is_utf_16 else "utf-8-sig")


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _find_fault(path: Path) -> str | None:
    """Describe the first wrong line. This is slow, so it runs only after a check failed."""
    with _open(path) as file:
        return next(_faults(path, file), None)


def _faults(path: Path, lines: IO[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        values = [value.strip() for value in line.split(",")]
        place = f"{path}, line {number}"
        if number == 1 and not values[0].isdecimal():
            continue
        if len(values) != COLUMNS:
            yield f"{place}: {len(values)} columns, expected {COLUMNS} (the label and 784 pixels)"
        elif not (values[0].isdecimal() and int(values[0]) < len(CLASS_NAMES)):
            yield f"{place}: label {values[0]!r}, allowed: 0 to {len(CLASS_NAMES) - 1}"
        else:
            for column, value in enumerate(values[1:], 2):
                if not (value.isdecimal() and int(value) < 256):
                    yield f"{place}, column {column}: pixel {value!r}, allowed: 0 to 255"
