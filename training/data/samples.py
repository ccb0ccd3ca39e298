"""Labelled images in memory: their shape, their hash and their split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from training.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Images uint8 ``[N, H, W]`` (bright item on black) and their labels int64 ``[N]``."""

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        is_stack = self.images.dtype == np.uint8 and self.images.ndim == 3
        if not is_stack or self.labels.shape != (len(self.images),):
            raise DataError(
                f"received images {self.images.dtype} {self.images.shape} with labels "
                f"{self.labels.shape}; expected images uint8 [N, H, W] with labels [N]"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[1], self.images.shape[2]

    def sha256(self) -> str:
        """Hash shape, pixels and labels. The hash does not depend on the file format."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def split(self, fraction: float, seed: int) -> tuple[Samples, Samples]:
        """Split off a stratified ``fraction`` and return (the rest, the fraction).

        Raises:
            DataError: A class has too few samples to be in both parts.
        """
        try:
            rest, part = train_test_split(
                np.arange(len(self)), test_size=fraction, random_state=seed, stratify=self.labels
            )
        except ValueError as error:
            raise DataError(
                f"cannot split {fraction:.1%} off {len(self)} samples: {error}; both parts need "
                "images of each class: add images"
            ) from error
        one_sided = set(self.labels[rest].tolist()) ^ set(self.labels[part].tolist())
        if one_sided:
            raise DataError(
                f"cannot split {fraction:.1%} off {len(self)} samples: class {min(one_sided)} has "
                "too few images to be in both parts: add images"
            )
        return self._select(rest), self._select(part)

    def _select(self, indices: NDArray[np.intp]) -> Samples:
        return Samples(self.images[indices], self.labels[indices])


class Source(Protocol):
    """Where samples come from. Only the commands evaluate, export and golden call ``test``."""

    @property
    def folder(self) -> Path:
        """The folder that holds the files."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""

    def __str__(self) -> str:
        """Name the kind of source, without a path."""

    def training(self) -> Samples:
        """Read the training set, validation included."""

    def test(self) -> Samples:
        """Read the test set."""
