"""Outliers: reproducible images of no class."""

from __future__ import annotations

import numpy as np

from tests.training.fashion_mnist import sample
from training.assess.outliers import make_outliers, render_digits


def test_equal_seeds_give_equal_outliers() -> None:
    """Each kind has the number, shape and type of the given images, and is reproducible."""
    images = sample().images
    first, again = make_outliers(images, 3), make_outliers(images, 3)
    assert set(first) == {"uniform noise", "rendered digits", "inverted images"}
    for kind, made in first.items():
        assert (made.shape, made.dtype) == (images.shape, images.dtype)
        assert (made == again[kind]).all()


def test_digits_are_bright_on_black() -> None:
    """A rendered digit is bright and covers only a part of the image. Few digits are equal."""
    digits = render_digits(200, (28, 28), np.random.default_rng(1))
    assert (digits.max(axis=(1, 2)) > 200).all()
    assert ((digits > 127).mean(axis=(1, 2)) > 0.02).all()
    assert ((digits > 127).mean(axis=(1, 2)) < 0.4).all()
    assert len(np.unique(digits, axis=0)) > 195
