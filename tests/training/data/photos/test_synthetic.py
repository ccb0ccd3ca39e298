"""Synthetic photos: the service finds the item in them."""

from __future__ import annotations

import numpy as np
import pytest

from service.imaging import InputSpec, read_image
from tests.training.fashion_mnist import sample
from training.data.photos.synthetic import BACKGROUNDS, Background, make_photos


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_photos_show_their_item(background: Background) -> None:
    """Equal seeds give equal JPEG files, and the service finds the item in most of them."""
    images = sample().images[:30]
    photos = make_photos(images, background, seed=1)
    assert photos == make_photos(images, background, seed=1)
    assert all(photo.startswith(b"\xff\xd8") for photo in photos)
    grey = InputSpec("item-on-black", (28, 28))
    seen = np.stack([read_image(photo, grey, 10**7).image for photo in photos]).astype(int)
    differences = abs(seen[:, None] - images[None]).mean(axis=(2, 3))
    assert (differences.argmin(axis=1) == np.arange(30)).mean() > 0.8
