"""Learning from photos: what the service sees of them is drawn beside each batch, and a run knows its photos again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.fashion_mnist import SampleSource, sample
from tests.training.making import make_config
from training.assess.calibration import calibrate, load_calibrated, load_calibration
from training.data.photos.synthetic import GROUNDS, make_uploads
from training.data.photos.table import read_photos
from training.data.photos.views import VIEWS, make_views
from training.errors import DataError, RunError
from training.fit.answers import predict
from training.fit.runs import load_model, read_config, read_history, write_config
from training.fit.training import Batches, resume, train

SOURCE = SampleSource()
FOUR = replace(sample(), images=sample().images[:4], labels=sample().labels[:4])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write photos of twelve shoes, whose kind is not told, and one of no class."""
    folder = tmp_path / "photos"
    folder.mkdir()
    uploads = make_uploads(sample().images[sample().labels == 9][:12], "white", seed=3)
    for number, upload in enumerate(uploads):
        (folder / f"{number}.jpg").write_bytes(upload)
    lines = [f"{number}.jpg,5|7|9\n" for number in range(11)]
    (folder / "labels.csv").write_text("file,class_id\n" + "".join(lines) + "11.jpg,\n")
    return folder


def test_photos_are_seen_a_few_times_and_beside_uploads(photos: Path) -> None:
    """Each photo of a class is seen six times, differently; of several classes it is of each alike; half leaves some
    out; images of the data set are seen on each ground, as themselves.
    """
    views = make_views(photos, "all", FOUR, 10, seed=1)
    of_photos = 11 * VIEWS
    assert views.images.shape == (of_photos + len(GROUNDS) * 4, 28, 28)
    assert len(np.unique(views.images[:VIEWS], axis=0)) == VIEWS
    np.testing.assert_allclose(views.targets[:of_photos, [5, 7, 9]], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(views.targets.sum(axis=1), 1, rtol=1e-6)
    assert sorted(views.targets[of_photos:].argmax(axis=1)) == sorted(
        FOUR.labels.tolist() * len(GROUNDS)
    )
    again = make_views(photos, "all", FOUR, 10, seed=1)
    np.testing.assert_array_equal(again.images, views.images)
    developed_on = sum(photo.is_developed_on for photo in read_photos(photos) if photo.classes)
    assert 0 < developed_on < 11
    half = make_views(photos, "half", FOUR, 10, seed=1)
    assert len(half.images) == developed_on * VIEWS + len(GROUNDS) * 4


def test_photos_come_beside_each_batch_and_teachers_are_not_asked_about_them(
    photos: Path, small_run: Path
) -> None:
    """A batch holds its samples, with the teacher's answers, and after them photos with their labels."""
    config = make_config(
        SOURCE,
        name="student",
        teachers=[small_run],
        photos=photos,
        distillation_temperature=1.0,
        photos_from="all",
        photos_per_batch=5,
    )
    part, _ = config.split(SOURCE.training())
    images, targets = Batches(part, config, make_views(photos, "all", part, 10, seed=1))[0]
    assert len(images) == config.recipe.batch_size + 5
    answers = predict(load_model(small_run), images[:-5, ..., 0].astype(np.uint8))
    np.testing.assert_allclose(targets[:-5], answers, atol=1e-5)
    assert all(np.count_nonzero(targets[-5:], axis=1) % 2)  # one class, or the three of shoes


def test_run_knows_its_photos_again(photos: Path, tmp_path: Path) -> None:
    """A run on photos is calibrated and resumed with these alone; a recipe with photos needs some, one without none."""
    config = make_config(SOURCE, name="shoes", photos=photos, photos_from="all", photos_per_batch=5)
    run = tmp_path / "shoes"
    train(config, SOURCE, run, photos=photos)
    assert len(read_history(run)) == config.recipe.epochs
    assert read_config(run).photos_sha256 == config.photos_sha256
    with pytest.raises(RunError, match="name their folder with --photos"):
        calibrate(run, SOURCE)
    calibrate(run, SOURCE, photos=photos)
    (run / "model.keras").unlink()
    with pytest.raises(RunError, match="name their folder with --photos"):
        resume(run, SOURCE)
    (photos / "0.jpg").write_bytes((photos / "1.jpg").read_bytes())
    with pytest.raises(RunError, match="learns from other photos"):
        resume(run, SOURCE, photos)
    with pytest.raises(RunError, match="leave --photos out"):
        make_config(SOURCE, name="none", photos=photos)
    with pytest.raises(RunError, match="name their folder with --photos"):
        make_config(SOURCE, name="none", photos_from="all")
    (photos / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg cannot be read"):
        make_config(SOURCE, name="shoes", photos=photos, photos_from="all")


def test_photos_learnt_from_count_as_known(tmp_path: Path) -> None:
    """Photos unlike anything in the data set are nearer to what a run knows if it is calibrated with them."""
    photos = tmp_path / "photos"
    photos.mkdir()
    stripes = np.tile(np.array([[20], [230]], np.uint8).repeat(30, axis=0), (5, 300))
    stripes[:, :40] = stripes[:, -40:] = 255
    for number in range(8):
        Image.fromarray(np.roll(stripes, number, axis=0)).save(photos / f"{number}.png")
    (photos / "labels.csv").write_text(
        "file,class_id\n" + "".join(f"{number}.png,0\n" for number in range(8))
    )
    config = make_config(
        SOURCE, name="stripes", photos=photos, photos_from="all", photos_per_batch=5
    )
    run, without = tmp_path / "stripes", tmp_path / "without"
    train(config, SOURCE, run, photos=photos)
    shutil.copytree(run, without)
    write_config(without, replace(config, photos_sha256=None))
    calibrate(run, SOURCE, photos=photos)
    calibrate(without, SOURCE)
    views = make_views(photos, "all", FOUR, 10, seed=1).images[: 8 * VIEWS]
    assert excess(run, views) < excess(without, views)


def excess(run: Path, images: np.ndarray) -> float:
    """Return how far images ``[N, H, W]`` are on average beyond what a calibrated run takes for known."""
    calibration = load_calibration(run)
    assert calibration is not None
    distances = load_calibrated(run).predict(images[..., None].astype(np.float32), verbose=0)[
        "distance"
    ]
    return float(distances.mean() - calibration.threshold)
