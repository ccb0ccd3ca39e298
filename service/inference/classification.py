"""A model's answer to one image: probabilities, distance and prediction set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.bundle import Manifest
from service.errors import InvalidParameterError


@dataclass(frozen=True)
class Classification:
    """The answer to one image.

    ``probabilities`` has the order of the manifest's ``class_names``. ``class_id`` is the index of
    the most likely class. ``distance`` is a score: a lower value is closer to the classes, and it
    can be negative. ``activations``, float32 ``[classes, height, width]``, say where in the image
    the model saw signs of each class. Both are None if the model has no such output.
    """

    # Python numbers, not NumPy arrays: many NumPy calls release the GIL, and the event loop
    # would then wait for the other threads before it gets the GIL back. The activations are an
    # array: only ``explain`` reads them, and a view of an array keeps the GIL.

    manifest: Manifest
    probabilities: Sequence[float]
    class_id: int
    distance: float | None = None
    activations: NDArray[np.float32] | None = None

    @property
    def in_distribution(self) -> bool | None:
        """Whether ``distance`` is at most the threshold; None if the model has no distance."""
        threshold = self.manifest.distance_threshold
        return None if self.distance is None or threshold is None else self.distance <= threshold

    @property
    def class_name(self) -> str:
        """Name of the most likely class."""
        return self.manifest.class_names[self.class_id]

    @property
    def probability(self) -> float:
        """Probability of the most likely class."""
        return self.probabilities[self.class_id]

    def by_name(self, top_k: int | None = None) -> dict[str, float]:
        """Map class names to probabilities.

        Without ``top_k``, all classes are in the manifest's order. With ``top_k``, only the most
        likely classes are returned, best first.

        Raises:
            InvalidParameterError: ``top_k`` is not between 1 and the number of classes.
        """
        pairs = list(zip(self.manifest.class_names, self.probabilities, strict=True))
        if top_k is None:
            return dict(pairs)
        if not 1 <= top_k <= len(pairs):
            raise InvalidParameterError(
                f"top_k={top_k}: the model {self.manifest.name} has {len(pairs)} classes; "
                f"send 1 to {len(pairs)}"
            )
        return dict(sorted(pairs, key=lambda pair: -pair[1])[:top_k])

    def prediction_set(self, coverage: float | None) -> list[str] | None:
        """Return classes, best first, that include the true class with probability ``coverage``.

        The thresholds are those of the lowest calibrated coverage that is at least ``coverage``.
        The set may be empty. It is None if ``coverage`` is None.

        Raises:
            InvalidParameterError: The model has no prediction sets, or none for this coverage.
        """
        if coverage is None:
            return None
        sets = self.manifest.prediction_sets
        if sets is None:
            raise InvalidParameterError(
                f"coverage={coverage:g}: the model {self.manifest.name} has no prediction sets; "
                "leave out coverage"
            )
        low, high = sets.coverages[0], sets.coverages[-1]
        if not low <= coverage <= high:
            raise InvalidParameterError(
                f"coverage={coverage:g}: the model {self.manifest.name} has prediction sets for "
                f"{low:g} to {high:g}; send {low:g} to {high:g}"
            )
        row = next(row for row, calibrated in enumerate(sets.coverages) if calibrated >= coverage)
        minima = dict(zip(self.manifest.class_names, sets.minimum_probabilities[row], strict=True))
        return [name for name, value in self.by_name(len(minima)).items() if value >= minima[name]]
