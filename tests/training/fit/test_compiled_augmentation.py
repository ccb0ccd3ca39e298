"""The compiled augmentations: they keep shape, type and range, and mix targets like pixels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.fashion_mnist import sample
from training.fit.compiled_augmentation import (
    COMPILED_AUGMENTATIONS,
    cutmix,
    cutout,
    flip,
    fmix,
    mixup,
    shift,
)

IMAGES = sample().images.astype(np.float32)
TARGETS = np.eye(10, dtype=np.float32)[sample().labels]


def run(step: Any, images: Any = IMAGES, targets: Any = TARGETS) -> tuple[NDArray[Any], Any]:
    """Run a compiled step with the key of one batch."""
    changed, mixed = jax.jit(step)(jax.random.key(1), jnp.asarray(images), jnp.asarray(targets))
    return np.asarray(changed), np.asarray(mixed)


@pytest.mark.parametrize("name", COMPILED_AUGMENTATIONS)
def test_shape_type_and_range_stay(name: str) -> None:
    """An augmentation keeps shapes, types and the range 0..255, and targets still sum to 1."""
    images, targets = IMAGES, TARGETS
    for step in COMPILED_AUGMENTATIONS[name]:
        images, targets = run(step, images, targets)
    assert (images.shape, targets.shape) == (IMAGES.shape, TARGETS.shape)
    assert {str(images.dtype), str(targets.dtype)} == {"float32"}
    assert images.min() >= 0
    assert images.max() <= 255
    assert name == "none" or (images != IMAGES).any()
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)


def test_flip_mirrors_about_half() -> None:
    """About half of the images become their mirror image, and the others stay."""
    flipped, _ = run(flip)
    mirrored = (flipped == IMAGES[:, :, ::-1]).all(axis=(1, 2))
    assert (mirrored | (flipped == IMAGES).all(axis=(1, 2))).all()
    assert 0.35 < mirrored.mean() < 0.65


def test_crop_shows_at_most_its_padding() -> None:
    """Images move by whole pixels over black, at most by the padding, and all moves occur."""
    moved, _ = run(shift(2))
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2)))
    moves = [
        (moved == padded[:, r : r + 28, c : c + 28]).all(axis=(1, 2))
        for r in range(5)
        for c in range(5)
    ]
    assert np.any(moves, axis=0).all()
    assert np.any(moves, axis=1).all()


def test_cutout_blacks_out_at_most_its_square() -> None:
    """The changed pixels are black and within a square of the given side."""
    changed, _ = run(cutout(8), np.full_like(IMAGES, 255))
    assert set(np.unique(changed)) == {0, 255}
    for axis in (1, 2):
        hidden = (changed == 0).any(axis=axis)
        assert max(np.ptp(np.flatnonzero(places)) for places in hidden) == 7


@pytest.mark.parametrize("step", [mixup(1.0), mixup(0.2), cutmix(1.0), fmix])
def test_mixes_keep_targets_in_step_with_pixels(step: Any) -> None:
    """Class 0 is black and class 1 is white, so a mixed target equals the share of white."""
    labels = np.arange(300) % 2
    plain = np.broadcast_to(labels[:, None, None] * np.float32(255), IMAGES.shape)
    mixed, targets = run(step, plain, np.eye(2, dtype=np.float32)[labels])
    np.testing.assert_allclose(mixed.mean(axis=(1, 2)) / 255, targets[:, 1], atol=1e-5)
    assert np.std(targets[:, 1]) > 0.1
