"""Weights that PyTorch saved: tensors are read, and hostile files run no code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.architectures import find_architecture
from training.architectures.efficientnet_lite import load_lite0_weights
from training.architectures.torch_weights import MAGIC_NUMBER, read_torch_weights
from training.errors import TrainingError


class Hostile:
    """An object whose unpickling would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def test_imagenet_weights_fill_every_layer() -> None:
    """Each convolution and normalisation gets the package's weights; only the last layer is new."""
    model = find_architecture("efficientnet-lite0").build((160, 160), 10)
    load_lite0_weights(model, None)
    variance = model.get_layer("bn0").get_weights()[3]
    assert not np.allclose(variance, 1)
    stem = model.get_layer("conv_stem").get_weights()[0]
    assert stem.shape == (3, 3, 3, 32)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        pickle.dumps("no number"),
        pickle.dumps(MAGIC_NUMBER),
        pickle.dumps(MAGIC_NUMBER) + pickle.dumps(1001) + pickle.dumps({}) + pickle.dumps([1]) * 2,
        pickle.dumps(Hostile()),
    ],
    ids=["empty", "zip", "text", "number alone", "no tensors", "command"],
)
def test_other_files_are_rejected(tmp_path: Path, content: bytes) -> None:
    """A file of another kind, or one that would run code, gives one error that names the file."""
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"weights\.pth is not a file of PyTorch weights"):
        read_torch_weights(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that does not exist is named."""
    with pytest.raises(TrainingError, match=r"none\.pth cannot be read: No such file"):
        read_torch_weights(tmp_path / "none.pth")
