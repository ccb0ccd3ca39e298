"""The answer of a model to one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.bundle import Manifest
from service.errors import InvalidParameterError


@dataclass(frozen=True)
class Classification:
    """The answer to one image: ``probabilities`` in the order of the manifest's names, ``class_id`` the likeliest.

    ``distance`` is how far the image is from all classes, None where the model does not tell.
    Plain numbers: each call into NumPy gives the interpreter's lock away, and gets it back after the other threads.
    """

    manifest: Manifest
    probabilities: Sequence[float]
    class_id: int
    distance: float | None = None

    @property
    def in_distribution(self) -> bool | None:
        """Whether the image is near enough to a class to be one, None where the model does not tell."""
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
        """Return probability by class name: all in label order, or the ``top_k`` most likely, best first.

        Raises:
            InvalidParameterError: ``top_k`` is not between 1 and the number of classes.
        """
        pairs = list(zip(self.manifest.class_names, self.probabilities, strict=True))
        if top_k is None:
            return dict(pairs)
        if not 1 <= top_k <= len(pairs):
            raise InvalidParameterError(
                f"top_k={top_k}: the model has {len(pairs)} classes; send 1 to {len(pairs)}"
            )
        return dict(sorted(pairs, key=lambda pair: -pair[1])[:top_k])

    def prediction_set(self, coverage: float | None) -> list[str] | None:
        """Return the classes that hold the truth with a probability of at least ``coverage``, best first.

        The set is that of the next coverage which was calibrated; it may be empty. None if no coverage is asked for.

        Raises:
            InvalidParameterError: The model has no prediction sets, or none of this coverage.
        """
        if coverage is None:
            return None
        sets = self.manifest.prediction_sets
        if sets is None:
            raise InvalidParameterError(
                f"coverage={coverage:g}: the model {self.manifest.name} has no prediction sets; leave coverage out"
            )
        low, high = sets.coverages[0], sets.coverages[-1]
        if not low <= coverage <= high:
            raise InvalidParameterError(
                f"coverage={coverage:g} cannot be had of this model; send {low:g} to {high:g}"
            )
        row = next(row for row, calibrated in enumerate(sets.coverages) if calibrated >= coverage)
        minima = dict(zip(self.manifest.class_names, sets.minimum_probabilities[row], strict=True))
        return [name for name, value in self.by_name(len(minima)).items() if value >= minima[name]]
