"""Weights that PyTorch saved before its version 1.6, read without PyTorch."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from training.errors import TrainingError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": np.float32, "LongStorage": np.int64}


def read_torch_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read a file of named tensors as arrays.

    The file holds five pickles (a number, a version, sizes of types, the tensors, the keys of the
    storages) and then the storages. The unpickler builds nothing but tensors, so a hostile file
    cannot run code.

    Raises:
        TrainingError: The file cannot be read, or it is not of this format.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} is not a file of PyTorch weights: {error}") from error


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor's numbers are: ``offset``, ``shape`` and ``strides`` count numbers."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Allow what a table of tensors needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in STORAGES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        """Return a storage's key and type. Its numbers come later in the file."""
        _, kind, key, *_ = pid
        return key, kind


def _rebuild_tensor(
    storage: tuple[str, str], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> tuple[_Tensor, str]:
    key, kind = storage
    return _Tensor(key, offset, shape, strides), kind


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    if _Unpickler(file).load() != MAGIC_NUMBER:
        raise pickle.UnpicklingError("the magic number is missing")
    for _ in ("version", "sizes of types"):
        _Unpickler(file).load()
    tensors, keys = _Unpickler(file).load(), _Unpickler(file).load()
    kinds = {tensor.storage: STORAGES[kind] for tensor, kind in tensors.values()}
    storages = {key: _read_storage(file, np.dtype(kinds[key])) for key in keys}
    return {name: _view(tensor, storages[tensor.storage]) for name, (tensor, _) in tensors.items()}


def _read_storage(file: BinaryIO, kind: np.dtype[Any]) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    return np.frombuffer(file.read(count * kind.itemsize), kind.newbyteorder("<"), count)


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    last = tensor.offset + sum(
        (size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    if min(tensor.offset, *tensor.strides, 0) < 0 or last >= len(storage):
        raise ValueError("a tensor exceeds its storage")
    strides = [step * storage.itemsize for step in tensor.strides]
    return np.array(as_strided(storage[tensor.offset :], tensor.shape, strides))
