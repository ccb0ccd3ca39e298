"""The average of a fine-tuned run and its start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.fashion_mnist import SampleSource
from tests.training.making import make_config
from training.errors import RunError
from training.fit.averaging import average
from training.fit.runs import load_model, read_config, read_history
from training.fit.training import train

SOURCE = SampleSource()


@pytest.fixture(scope="module")
def tuned(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that fine-tuned the small run."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    config = make_config(SOURCE, name="tuned", start_from=small_run, fine_tunes=True, epochs=1)
    train(config, SOURCE, folder, start_from=small_run)
    return folder


def test_weights_are_halfway(small_run: Path, tuned: Path, tmp_path: Path) -> None:
    """Every weight of the new run is the mean of both; its settings are the fine-tuned run's."""
    average(tuned, small_run, tmp_path / "mean")
    found, first, second = (
        load_model(run).get_weights() for run in (tmp_path / "mean", small_run, tuned)
    )
    for mean, start, end in zip(found, first, second, strict=True):
        np.testing.assert_allclose(mean, (start + end) / 2, atol=1e-6)
    config = read_config(tmp_path / "mean")
    assert (config.name, config.is_averaged, config.earlier_epochs) == ("mean", True, 3)
    assert config.recipe == read_config(tuned).recipe
    assert read_history(tmp_path / "mean") == read_history(tuned)


def test_other_runs_are_rejected(small_run: Path, tuned: Path, tmp_path: Path) -> None:
    """Only a run and its own start are averaged, and nothing is overwritten."""
    with pytest.raises(RunError, match="started from None, not from tuned"):
        average(small_run, tuned, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    with pytest.raises(RunError, match="exists already"):
        average(tuned, small_run, tuned)
