"""Corruptions: fifteen reproducible kinds that keep the shape and type of images."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.fashion_mnist import sample
from training.assess.corruptions import CORRUPTIONS, corrupt

REVERSIBLE = ("inverse", "flip left to right", "flip upside down")


def test_there_are_fifteen() -> None:
    """Fashion-MNIST-C also has fifteen kinds."""
    assert len(CORRUPTIONS) == 15


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_can_be_made_again(name: str) -> None:
    """Equal seeds give equal images of the same shape and type, and the originals do not change."""
    images = sample().images
    before = images.copy()
    corrupted = corrupt(images, name, 1)
    assert (corrupted.shape, corrupted.dtype) == (images.shape, images.dtype)
    assert (corrupted == corrupt(images, name, 1)).all()
    assert (images == before).all()
    assert (corrupted != images).any(axis=(1, 2)).mean() > 0.95


@pytest.mark.parametrize("name", REVERSIBLE)
def test_mirror_of_a_mirror_is_the_original(name: str) -> None:
    """Mirroring twice, or inverting twice, gives the original."""
    images = sample().images
    assert (corrupt(corrupt(images, name, 1), name, 2) == images).all()


def test_quarter_turns_undo_each_other() -> None:
    """A turn to the left and a turn to the right give the original."""
    images = sample().images
    assert (
        corrupt(corrupt(images, "quarter turn left", 1), "quarter turn right", 1) == images
    ).all()


def test_images_of_other_sizes_are_corrupted_too() -> None:
    """Corruptions accept images that are not square."""
    images = sample().images[:5, :20]
    assert all(corrupt(images, name, 1).shape == images.shape for name in CORRUPTIONS)


def test_strengths_are_as_documented() -> None:
    """Noise, contrast, blur and scale change images by the documented amounts."""
    images = np.full((50, 28, 28), 100, np.uint8)
    assert (corrupt(images, "impulse noise", 1) != images).mean() == pytest.approx(0.09, abs=0.005)
    noisy = sample().images
    assert corrupt(noisy, "contrast", 1).std(axis=(1, 2)) == pytest.approx(
        0.3 * noisy.std(axis=(1, 2)), rel=0.05
    )
    disc = np.zeros((4, 28, 28), np.uint8)
    disc[:, 9:19, 9:19] = 200
    assert corrupt(disc, "motion blur", 1).mean() == pytest.approx(disc.mean(), rel=0.02)
    assert corrupt(disc, "scale", 1).mean() == pytest.approx(0.36 * disc.mean(), rel=0.05)
