"""Own the figures of what a model knows of its own knowledge: refusals and prediction sets. Must never know a model."""

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
    """Measure how well the distances ``[N]`` of known images are told from those of outliers, by kind of outlier."""
    accepted = distances <= threshold
    return {
        "threshold": threshold,
        "accepted": float(accepted.mean()),
        "accepted_per_class": {
            name: float(accepted[labels == label].mean()) for label, name in enumerate(class_names)
        },
        "outliers": {
            kind: {
                "count": len(theirs),
                "auroc": float(
                    roc_auc_score(
                        np.repeat([0, 1], (len(distances), len(theirs))), [*distances, *theirs]
                    )
                ),
                "refused": float((theirs > threshold).mean()),
            }
            for kind, theirs in outliers.items()
        },
    }


def measure_prediction_sets(
    probabilities: NDArray[np.float32],
    labels: Labels,
    sets: PredictionSets,
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Measure the prediction sets of probabilities ``[N, K]`` at some coverages: how often they hold the truth."""
    measured = {}
    for coverage in MEASURED_COVERAGES:
        members = probabilities >= np.array(
            sets.minimum_probabilities[sets.coverages.index(coverage)]
        )
        held = members[np.arange(len(labels)), labels]
        measured[f"{coverage:.2f}"] = {
            "coverage": float(held.mean()),
            "per_class": {
                name: float(held[labels == label].mean()) for label, name in enumerate(class_names)
            },
            "mean_size": float(members.sum(axis=1).mean()),
            "empty": float((~members.any(axis=1)).mean()),
        }
    return measured
