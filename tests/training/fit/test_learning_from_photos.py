"""Learning from photos: views are added to each batch, and a run accepts only its own photos."""

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
from training.data.photos.views import VIEWS_PER_PHOTO, make_views
from training.data.samples import Images
from training.errors import DataError, RunError
from training.fit.answers import predict
from training.fit.batches import Batches
from training.fit.runs import load_model, read_config, read_history, write_config
from training.fit.training import resume, train

SOURCE = SampleSource()
FOUR = replace(sample(), images=sample().images[:4], labels=sample().labels[:4])


def test_views_are_added_to_each_batch(shoe_photos: Path, small_run: Path) -> None:
    """A batch holds samples with the teacher's answers, then views with their own labels."""
    config = make_config(
        SOURCE,
        name="student",
        teachers=[small_run],
        photos=shoe_photos,
        distillation_temperature=1.0,
        photos_from="all",
        photos_per_batch=5,
    )
    part, _ = config.split(SOURCE.training())
    views = make_views(shoe_photos, "all", part, 10, seed=1)
    images, targets = Batches(part, config, views)[0]
    assert len(images) == config.recipe.batch_size + 5
    answers = predict(load_model(small_run), images[:-5, ..., 0].astype(np.uint8))
    np.testing.assert_allclose(targets[:-5], answers, atol=1e-5)
    assert all(np.count_nonzero(targets[-5:], axis=1) % 2)  # 1 class, or all 3 shoe classes


def test_run_recognizes_its_photos(shoe_photos: Path, tmp_path: Path) -> None:
    """A run that learns from photos is calibrated and resumed only with the same photos."""
    config = make_config(
        SOURCE, name="shoes", photos=shoe_photos, photos_from="all", photos_per_batch=5
    )
    run = tmp_path / "shoes"
    train(config, SOURCE, run, photos=shoe_photos)
    assert len(read_history(run)) == config.recipe.epochs
    assert read_config(run).photos_sha256 == config.photos_sha256
    with pytest.raises(RunError, match="pass their folder with --photos"):
        calibrate(run, SOURCE)
    calibrate(run, SOURCE, photos=shoe_photos)
    (run / "model.keras").unlink()
    with pytest.raises(RunError, match="pass their folder with --photos"):
        resume(run, SOURCE)
    (shoe_photos / "0.jpg").write_bytes((shoe_photos / "1.jpg").read_bytes())
    with pytest.raises(RunError, match="learns from other photos"):
        resume(run, SOURCE, shoe_photos)


def test_recipe_decides_whether_photos_are_needed(shoe_photos: Path) -> None:
    """Missing, unused and unreadable photos give errors before training starts."""
    with pytest.raises(RunError, match="leave --photos out"):
        make_config(SOURCE, name="none", photos=shoe_photos)
    with pytest.raises(RunError, match="pass their folder with --photos"):
        make_config(SOURCE, name="none", photos_from="all")
    (shoe_photos / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg cannot be read"):
        make_config(SOURCE, name="shoes", photos=shoe_photos, photos_from="all")


def test_photos_learned_from_count_as_known(tmp_path: Path) -> None:
    """After calibration with photos unlike the data set, these photos are nearer to the classes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    stripes = np.tile(np.array([[20], [230]], np.uint8).repeat(30, axis=0), (5, 300))
    stripes[:, :40] = stripes[:, -40:] = 255
    for number in range(8):
        Image.fromarray(np.roll(stripes, number, axis=0)).save(photos / f"{number}.png")
    lines = "".join(f"{number}.png,0\n" for number in range(8))
    (photos / "labels.csv").write_text(f"file,class_id\n{lines}")
    config = make_config(
        SOURCE, name="stripes", photos=photos, photos_from="all", photos_per_batch=5
    )
    run, without = tmp_path / "stripes", tmp_path / "without"
    train(config, SOURCE, run, photos=photos)
    shutil.copytree(run, without)
    write_config(without, replace(config, photos_sha256=None))
    calibrate(run, SOURCE, photos=photos)
    calibrate(without, SOURCE)
    views = make_views(photos, "all", FOUR, 10, seed=1).images[: 8 * VIEWS_PER_PHOTO]
    assert excess(run, views) < excess(without, views)


def excess(run: Path, images: Images) -> float:
    """Return the mean distance of images ``[N, H, W]`` beyond a calibrated run's threshold."""
    calibration = load_calibration(run)
    assert calibration is not None
    pixels = images[..., None].astype(np.float32)
    distances = load_calibrated(run).predict(pixels, verbose=0)["distance"]
    return float(distances.mean() - calibration.threshold)
