"""The loss of photo networks, against values computed by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from training.fit.losses import PossibleClassesLoss

LOGITS = np.array([[1.0, 2.0, -1.0]], np.float32)
LOGS = LOGITS[0] - np.log(np.exp(LOGITS[0]).sum())


@pytest.mark.parametrize(
    ("targets", "smoothing", "expected"),
    [
        ([0, 1, 0], 0.0, -LOGS[1]),
        ([0, 1, 0], 0.1, -0.9 * LOGS[1] - 0.1 * LOGS.mean()),
        ([1, 0, 1], 0.0, -np.log(np.exp(LOGS[0]) + np.exp(LOGS[2]))),
        ([0.2, 0.7, 0.1], 0.1, -(np.array([0.2, 0.7, 0.1]) * LOGS).sum()),
    ],
    ids=["one", "smoothed", "several", "taught"],
)
def test_loss_of_each_kind_of_target(
    targets: list[float], smoothing: float, expected: float
) -> None:
    """One or several possible classes, or a teacher's probabilities, which are not smoothed."""
    loss = PossibleClassesLoss(smoothing)
    rows = np.array([targets], np.float32)
    assert float(loss(rows, LOGITS)) == pytest.approx(expected, rel=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(rows, LOGITS)) == pytest.approx(expected, rel=1e-5)
