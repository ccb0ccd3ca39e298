"""Fixtures of the training tests: a small real run, evaluated with and without calibration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.training.fashion_mnist import SampleSource, sample
from tests.training.making import make_config
from training.assess.calibration import calibrate
from training.assess.evaluation import evaluate
from training.data.photos.synthetic import make_photos
from training.fit.training import train

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
    folder = tmp_path_factory.mktemp("runs") / "small"
    source = SampleSource()
    train(make_config(source, name="small", epochs=3), source, folder)
    evaluate(folder, source)
    return folder


@pytest.fixture(scope="session")
def calibrated_run(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the same run, calibrated before its evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "calibrated"
    shutil.copytree(
        small_run, folder, ignore=shutil.ignore_patterns("metrics.json", "test-openings.csv")
    )
    calibrate(folder, SampleSource())
    evaluate(folder, SampleSource())
    return folder


@pytest.fixture
def shoe_photos(tmp_path: Path) -> Path:
    """Folder of eleven photos of shoes without a labelled kind, and one photo of no class."""
    folder = tmp_path / "photos"
    folder.mkdir()
    boots = sample().images[sample().labels == 9][:12]
    for number, photo in enumerate(make_photos(boots, "white", seed=3)):
        (folder / f"{number}.jpg").write_bytes(photo)
    lines = "".join(f"{number}.jpg,5|7|9\n" for number in range(11))
    (folder / "labels.csv").write_text(f"file,class_id\n{lines}11.jpg,\n")
    return folder
