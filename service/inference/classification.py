"""The answer of a model to one image, and its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.bundle import Manifest
from service.errors import InvalidParameterError


@dataclass(frozen=True)
class Classification:
    """The answer to one image.

    ``probabilities`` has the order of the manifest's class names; ``class_id`` is the most likely.
    ``distance`` is how far the image is from all classes, None if the model has no such output.
    """

    # Python numbers, not NumPy's: each call into NumPy releases the interpreter's lock and then
    # waits for the other threads to get it back.

    manifest: Manifest
    probabilities: Sequence[float]
    class_id: int
    distance: float | None = None

    @property
    def in_distribution(self) -> bool | None:
        """Whether the image is near enough to a class, None if the model cannot tell."""
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
        """Return probability by class name: all in label order, or the best ``top_k``, best first.

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
        """Return classes that include the true one with at least this probability, best first.

        The next higher calibrated coverage is used. The set may be empty. None without a coverage.

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
                f"coverage={coverage:g} is outside this model's range ({low:g} to {high:g})"
            )
        row = next(row for row, calibrated in enumerate(sets.coverages) if calibrated >= coverage)
        minima = dict(zip(self.manifest.class_names, sets.minimum_probabilities[row], strict=True))
        return [name for name, value in self.by_name(len(minima)).items() if value >= minima[name]]
