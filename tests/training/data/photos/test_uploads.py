"""Uploads made from images of the data set: reproducible, in RGB, and showing the image."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.training.fashion_mnist import sample
from training.data.photos.uploads import (
    Maker,
    draw_figure,
    enlarge_image,
    make_product_photo,
    make_upload,
)

IMAGES = sample().images[:30]


@pytest.mark.parametrize(
    "make", [make_product_photo, enlarge_image, draw_figure, make_upload], ids=lambda f: f.__name__
)
def test_equal_generators_give_equal_pictures(make: Maker) -> None:
    """The generator decides everything: equal seeds give equal pictures, others differ."""
    first, again, other = (
        [np.asarray(make(image, np.random.default_rng(seed))) for image in IMAGES]
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize("make", [make_product_photo, enlarge_image, draw_figure])
def test_pictures_are_rgb_of_many_sizes(make: Maker) -> None:
    """Pictures are RGB, at least as large as the image, and not all of one size."""
    generator = np.random.default_rng(1)
    pictures = [make(image, generator) for image in IMAGES]
    assert {picture.mode for picture in pictures} == {"RGB"}
    assert min(min(picture.size) for picture in pictures) >= 28
    assert len({picture.size for picture in pictures}) > 1


def test_product_photo_on_white() -> None:
    """With on_white the corners are white, and the dark item shows."""
    generator = np.random.default_rng(1)
    for image in IMAGES:
        pixels = np.asarray(make_product_photo(image, generator, on_white=True))
        assert (pixels[[0, 0, -1], [0, -1, 0]] == 255).mean() > 0.7  # an item may touch a corner
        assert pixels.min() < 200


def test_texture_never_wraps_around() -> None:
    """The texture of a white item leaves it light: no pixel brighter than white turns black."""
    generator = np.random.default_rng(1)
    for _ in range(20):
        item = np.full((28, 28), 7, np.uint8)  # an item nearly as dark as the empty background
        assert np.asarray(make_product_photo(item, generator, on_white=True)).min() > 50


def test_enlarged_image_is_the_image() -> None:
    """An enlarged image, shrunk again, is the image or its negative."""
    generator = np.random.default_rng(1)
    for image in IMAGES:
        enlarged = (
            enlarge_image(image, generator).convert("L").resize((28, 28), Image.Resampling.BOX)
        )
        difference = np.asarray(enlarged).astype(int) - image
        negative = np.asarray(enlarged).astype(int) - (255 - image)
        assert min(abs(difference).mean(), abs(negative).mean()) < 12


def test_enlarged_sides_are_chosen() -> None:
    """Sides lie between sides_pixels."""
    enlarge = partial(enlarge_image, sides_pixels=(200, 210))
    generator = np.random.default_rng(1)
    sides = [enlarge(image, generator).width for image in IMAGES]
    assert 200 <= min(sides) < max(sides) <= 210
