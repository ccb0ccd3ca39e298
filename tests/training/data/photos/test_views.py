"""Model inputs made from photos: varied for training, unchanged for measuring."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.fashion_mnist import ROOT, sample
from training.data.photos.synthetic import BACKGROUNDS
from training.data.photos.table import read_photos
from training.data.photos.views import VIEWS_PER_PHOTO, make_views, see_photos
from training.errors import DataError

SHARED_PHOTOS = ROOT.parent / "shared" / "photos"
FOUR = replace(sample(), images=sample().images[:4], labels=sample().labels[:4])


def test_each_photo_gives_several_views(shoe_photos: Path) -> None:
    """A photo gives six different views, and its possible classes share the probability."""
    views = make_views(shoe_photos, "all", FOUR, 10, seed=1)
    of_photos = 11 * VIEWS_PER_PHOTO
    assert views.images.shape == (of_photos + len(BACKGROUNDS) * 4, 28, 28)
    assert len(np.unique(views.images[:VIEWS_PER_PHOTO], axis=0)) == VIEWS_PER_PHOTO
    np.testing.assert_allclose(views.targets[:of_photos, [5, 7, 9]], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(views.targets.sum(axis=1), 1, rtol=1e-6)


def test_samples_are_viewed_on_each_background(shoe_photos: Path) -> None:
    """After the photos, each sample follows once for each background with its own label."""
    views = make_views(shoe_photos, "all", FOUR, 10, seed=1)
    labels = views.targets[11 * VIEWS_PER_PHOTO :].argmax(axis=1)
    assert sorted(labels) == sorted(FOUR.labels.tolist() * len(BACKGROUNDS))


def test_equal_seeds_give_equal_views(shoe_photos: Path) -> None:
    """Two calls with the same seed give equal images."""
    first, again = (make_views(shoe_photos, "all", FOUR, 10, seed=1) for _ in range(2))
    np.testing.assert_array_equal(again.images, first.images)


def test_half_is_the_development_half(shoe_photos: Path) -> None:
    """Part "half" views only the photos of the development half."""
    known = [photo for photo in read_photos(shoe_photos) if photo.classes]
    count = sum(photo.is_in_development_half for photo in known)
    assert 0 < count < 11
    half = make_views(shoe_photos, "half", FOUR, 10, seed=1)
    assert len(half.images) == count * VIEWS_PER_PHOTO + len(BACKGROUNDS) * 4


def test_unknown_class_is_named(shoe_photos: Path) -> None:
    """A class_id beyond the data set's classes gives an error with the allowed range."""
    with pytest.raises(DataError, match=r"class_id 9 of 0\.jpg is unknown: .* 0 to 7"):
        make_views(shoe_photos, "all", FOUR, 8, seed=1)


def test_photos_are_seen_with_or_without_class(tmp_path: Path) -> None:
    """Only photos with a class, or only photos without, become inputs of the model's size."""
    for name in ("hat.png", "shirt.png"):
        Image.new("RGB", (60, 90), "white").save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,class_id\nhat.png,\nshirt.png,6\n")
    assert see_photos(tmp_path, (28, 28), of_classes=False).shape == (1, 28, 28)
    assert len(see_photos(tmp_path, (28, 28), of_classes=True)) == 1


def test_unreadable_photos_are_named(tmp_path: Path) -> None:
    """A missing photo and a table without its columns give errors."""
    (tmp_path / "labels.csv").write_text("file,class_id\nnowhere.png,\n")
    with pytest.raises(DataError, match=r"nowhere\.png"):
        see_photos(tmp_path, (28, 28), of_classes=False)
    (tmp_path / "labels.csv").write_text("name\nhat.png\n")
    with pytest.raises(DataError, match="is not a table of photos"):
        see_photos(tmp_path, (28, 28), of_classes=False)


@pytest.mark.skipif(not SHARED_PHOTOS.exists(), reason=f"{SHARED_PHOTOS} does not exist")
def test_development_photos_are_seen() -> None:
    """All photos of no class in the shared folder become model inputs."""
    assert len(see_photos(SHARED_PHOTOS, (28, 28), of_classes=False)) > 100
