"""Own labelled images in memory: their shape, their hash, their split. Must never know where they came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
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
        if (
            self.images.dtype != np.uint8
            or self.images.ndim != 3
            or self.labels.shape != (len(self.images),)
        ):
            raise DataError(
                f"expected images uint8 [N, H, W] with N labels, "
                f"got images {self.images.dtype} {self.images.shape} with labels {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[1], self.images.shape[2]

    def sha256(self) -> str:
        """Hash shape, pixels and labels: equal for equal tensors, whatever file format they were read from."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()

    def split(self, fraction: float, seed: int) -> tuple[Samples, Samples]:
        """Cut off a stratified ``fraction`` for validation; return (the rest, the cut).

        Raises:
            DataError: There are too few samples of a class to put some into both parts.
        """
        try:
            rest, cut = train_test_split(
                np.arange(len(self)), test_size=fraction, random_state=seed, stratify=self.labels
            )
        except ValueError as error:
            raise DataError(
                f"cannot cut {fraction:.1%} of {len(self)} samples for validation: {error}"
            ) from error
        return Samples(self.images[rest], self.labels[rest]), Samples(
            self.images[cut], self.labels[cut]
        )


class Source(Protocol):
    """Where samples come from; ``test`` is for ``evaluate`` and the gate of ``export`` alone."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""

    def __str__(self) -> str:
        """Say which kind of source this is, without a path."""

    def training(self) -> Samples:
        """Read the training set, validation included."""

    def test(self) -> Samples:
        """Read the test set."""
