"""Measurement of a model's uncertainty: rejected images and prediction sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from service.bundle import PredictionSets
from training.data.samples import Labels
from training.fit.answers import Distances

MEASURED_COVERAGES = (0.80, 0.90, 0.95, 0.99)


def measure_distances(
    distances: Distances,
    labels: Labels,
    outliers: Mapping[str, Distances],
    threshold: float,
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Measure how well distances separate known images ``[N]`` from each kind of outlier."""
    accepted = distances <= threshold
    return {
        "threshold": threshold,
        "accepted": float(accepted.mean()),
        "accepted_per_class": {
            name: _share(accepted[labels == label]) for label, name in enumerate(class_names)
        },
        "outliers": {
            kind: {
                "count": len(others),
                "auroc": _auroc(distances, others),
                "refused": float((others > threshold).mean()),
            }
            for kind, others in outliers.items()
        },
    }


def _share(is_so: NDArray[np.bool_]) -> float | None:
    """Return the share of images; None if the test set has no image of the class."""
    return float(is_so.mean()) if is_so.size else None


def _auroc(known: Distances, others: Distances) -> float:
    is_other = np.repeat([0, 1], (len(known), len(others)))
    return float(roc_auc_score(is_other, np.concatenate([known, others])))


def measure_prediction_sets(
    probabilities: NDArray[np.float32],
    labels: Labels,
    sets: PredictionSets,
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Measure prediction sets of probabilities ``[N, K]``: their coverage and their size."""
    measured = {}
    for coverage in MEASURED_COVERAGES:
        minima = sets.minimum_probabilities[sets.coverages.index(coverage)]
        members = probabilities >= np.array(minima)
        held = members[np.arange(len(labels)), labels]
        measured[f"{coverage:.2f}"] = {
            "coverage": float(held.mean()),
            "per_class": {
                name: _share(held[labels == label]) for label, name in enumerate(class_names)
            },
            "mean_size": float(members.sum(axis=1).mean()),
            "empty": float((~members.any(axis=1)).mean()),
        }
    return measured
