"""The IDX format, and the four IDX files of Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.samples import Samples
from training.errors import DataError

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
TRAINING_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST_FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
WHERE_TO_GET_IT = (
    "get the four files from github.com/zalandoresearch/fashion-mnist (data/fashion) "
    "or from Debian's package dataset-fashion-mnist, and pass their folder with --data"
)

# The published files: md5 of the decompressed content, and number of items. The md5 of the
# gzip file is not compared, because Debian's gzip header has no file name.
PUBLISHED = {
    "train-images-idx3-ubyte.gz": ("f4a8712d7a061bf5bd6d2ca38dc4d50a", 60_000),
    "train-labels-idx1-ubyte.gz": ("9018921c3c673c538a1fc5bad174d6f9", 60_000),
    "t10k-images-idx3-ubyte.gz": ("8181f5470baa50b63fa0f6fddb340f0a", 10_000),
    "t10k-labels-idx1-ubyte.gz": ("15d484375f8d13e6eb1aabb0c3f46965", 10_000),
}


@dataclass(frozen=True)
class IdxFolder:
    """A folder with the four published files, gzipped or not.

    Reading verifies their md5 and number of items.
    """

    folder: Path

    @property
    def class_names(self) -> tuple[str, ...]:
        """The ten class names of Fashion-MNIST."""
        return CLASS_NAMES

    def __str__(self) -> str:
        return "Fashion-MNIST, IDX files"

    def training(self) -> Samples:
        """Read the 60,000 training images."""
        return self._read(TRAINING_FILES)

    def test(self) -> Samples:
        """Read the 10,000 test images."""
        return self._read(TEST_FILES)

    def _read(self, names: tuple[str, str]) -> Samples:
        images, labels = (_read_published(self.folder, name) for name in names)
        return Samples(images, labels.astype(np.int64))


def find_idx(folder: Path, name: str) -> Path:
    """Return the path of a published file: gzipped, gunzipped, or gunzipped by another program.

    Some programs replace the dash before ``idx`` by a dot. If there is no such file, the path of
    the gzipped file is returned.
    """
    plain = name.removesuffix(".gz")
    paths = [folder / each for each in (name, plain, plain.replace("-idx", ".idx"))]
    return next((path for path in paths if path.exists()), paths[0])


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not, in the shape that its header gives.

    Raises:
        DataError: The file is missing or truncated, or is not IDX.
    """
    return _parse(path, _decompress(path))


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write a gzipped IDX file of unsigned bytes. Equal values always give equal files."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


def _read_published(folder: Path, name: str) -> NDArray[np.uint8]:
    path, (md5, count) = find_idx(folder, name), PUBLISHED[name]
    content = _decompress(path)
    values = _parse(path, content)
    if len(values) != count:
        raise DataError(
            f"{path} holds {len(values):,} items, expected {count:,}; {WHERE_TO_GET_IT}"
        )
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != md5:
        raise DataError(f"{path} decompresses to md5 {actual}, expected {md5}; {WHERE_TO_GET_IT}")
    return values


def _decompress(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        # IDX begins with two zeros, so a file that begins so is not gzipped, whatever its name is.
        return content if content.startswith(b"\0\0") else gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or not gzip ({error}); {WHERE_TO_GET_IT}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {WHERE_TO_GET_IT}") from error


def _parse(path: Path, raw: bytes) -> NDArray[np.uint8]:
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError(
            f"{path} does not start with the header of an IDX file of bytes; {WHERE_TO_GET_IT}"
        )
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if values.size != np.prod(shape):
        raise DataError(
            f"{path} holds {values.size:,} values, but its header gives the shape {shape}; "
            f"{WHERE_TO_GET_IT}"
        )
    return values.reshape(shape)
