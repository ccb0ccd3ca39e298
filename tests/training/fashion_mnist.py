"""Fashion-MNIST for the tests: the whole data set, and the sample in tests/data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from training.data.samples import Samples
from training.data.sources import STANDARD_FOLDERS
from training.data.sources.idx import CLASS_NAMES, TEST_FILES, TRAINING_FILES, IdxFolder, read_idx

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "data" / "fashion-mnist-sample"


def fashion_mnist() -> IdxFolder:
    """Find the whole data set, or skip the test."""
    folders = [
        ROOT.parent / "shared" / "fashion-mnist",
        *(ROOT / folder.expanduser() for folder in STANDARD_FOLDERS),
    ]
    for folder in folders:
        if all((folder / name).exists() for name in TRAINING_FILES + TEST_FILES):
            return IdxFolder(folder)
    pytest.skip(f"Fashion-MNIST is in none of {', '.join(map(str, folders))}")


def sample() -> Samples:
    """Read the 300 images in tests/data, 30 of each class."""
    labels = read_idx(SAMPLE / "labels-idx1-ubyte.gz")
    return Samples(read_idx(SAMPLE / "images-idx3-ubyte.gz"), labels.astype(np.int64))


@dataclass(frozen=True)
class SampleSource:
    """The sample as a source: the first 200 images for training, the other 100 as test set."""

    folder: Path = SAMPLE

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of Fashion-MNIST."""
        return CLASS_NAMES

    def __str__(self) -> str:
        return "300 images of Fashion-MNIST"

    def training(self) -> Samples:
        """The first 200."""
        return Samples(sample().images[:200], sample().labels[:200])

    def test(self) -> Samples:
        """The last 100."""
        return Samples(sample().images[200:], sample().labels[200:])
