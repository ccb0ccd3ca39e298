"""Outliers: images of none of the classes, made again alike, and photos read as the service reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.fashion_mnist import ROOT, sample
from training.assess.outliers import make_outliers, render_digits
from training.data.photos.views import see_photos
from training.errors import DataError

PHOTOS = ROOT.parent / "shared" / "photos"


def test_outliers_are_made_again_alike() -> None:
    """A seed gives as many images of each kind as were given, in their form, and the same again."""
    images = sample().images
    first, again = make_outliers(images, None, 3), make_outliers(images, None, 3)
    assert set(first) == {"uniform noise", "rendered digits", "inverted images"}
    for kind, made in first.items():
        assert (made.shape, made.dtype) == (images.shape, images.dtype)
        assert (made == again[kind]).all()


def test_digits_are_bright_on_black_and_inside() -> None:
    """A rendered digit is a stroke of white that does not fill the picture, and hardly two are the same."""
    digits = render_digits(200, (28, 28), np.random.default_rng(1))
    assert (digits.max(axis=(1, 2)) > 200).all()
    assert ((digits > 127).mean(axis=(1, 2)) > 0.02).all()
    assert ((digits > 127).mean(axis=(1, 2)) < 0.4).all()
    assert len(np.unique(digits, axis=0)) > 195


def test_photos_without_a_class_are_read(tmp_path: Path) -> None:
    """Of a folder's table only the rows without a class count, and they come in the model's size."""
    for name in ("hat.png", "shirt.png"):
        Image.new("RGB", (60, 90), "white").save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,class_id\nhat.png,\nshirt.png,6\n")
    assert see_photos(tmp_path, (28, 28), of_classes=False).shape == (1, 28, 28)
    assert len(see_photos(tmp_path, (28, 28), of_classes=True)) == 1
    (tmp_path / "labels.csv").write_text("file,class_id\nnowhere.png,\n")
    with pytest.raises(DataError, match=r"nowhere\.png"):
        see_photos(tmp_path, (28, 28), of_classes=False)
    (tmp_path / "labels.csv").write_text("name\nhat.png\n")
    with pytest.raises(DataError, match="is not a table of photos"):
        see_photos(tmp_path, (28, 28), of_classes=False)


@pytest.mark.skipif(not PHOTOS.exists(), reason=f"{PHOTOS} is not here")
def test_photos_for_development_are_read() -> None:
    """The photos of other things for development all become model inputs."""
    assert len(see_photos(PHOTOS, (28, 28), of_classes=False)) > 100
