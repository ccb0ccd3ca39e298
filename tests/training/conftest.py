"""Fixtures of the training tests: a small real run, evaluated with and without calibration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.fashion_mnist import SampleSource

# The fixtures import Keras, which takes seconds: most tests of the data do without.

# Keras 3.15 saves models with numpy.asarray, but TensorFlow 2.21's tensors do not support NumPy 2's
# copy argument.
KERAS_SAVES = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore the warning from saving a model, in the tests of training only."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(KERAS_SAVES))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of cnn-1conv on 200 images, evaluated on 100."""
    from tests.training.making import make_config
    from training.assess.evaluation import evaluate
    from training.fit.training import train

    folder = tmp_path_factory.mktemp("runs") / "small"
    source = SampleSource()
    train(make_config(source, name="small", epochs=3), source, folder)
    evaluate(folder, source)
    return folder


@pytest.fixture(scope="session")
def calibrated_run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same run, calibrated before its evaluation."""
    from training.assess.calibration import calibrate
    from training.assess.evaluation import evaluate

    folder = tmp_path_factory.mktemp("runs") / "calibrated"
    shutil.copytree(
        small_run, folder, ignore=shutil.ignore_patterns("metrics.json", "test-openings.csv")
    )
    calibrate(folder, SampleSource())
    evaluate(folder, SampleSource())
    return folder
