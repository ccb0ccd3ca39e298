"""The augmentations, compared with SciPy and with their documentation."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tests.training.fashion_mnist import sample
from training.fit.augmentation import (
    AUGMENTATIONS,
    affine,
    affine_matrices,
    blur,
    cutmix,
    cutout,
    flip,
    fmix,
    make_smooth_basis,
    mixup,
    shift,
    sometimes,
    transform,
)

IMAGES = sample().images.astype(np.float32)
TARGETS = np.eye(10, dtype=np.float32)[sample().labels]


def generator(seed: int = 1) -> np.random.Generator:
    """Return the generator of one batch."""
    return np.random.default_rng(seed)


def tutorial_matrix(
    theta: float, shift_pixels: Any, shear: float, zoom: Any, size: tuple[int, int]
) -> NDArray[Any]:
    """Compose the matrix of one image like keras_preprocessing.

    The order is rotation, shift, shear, zoom, around the centre.
    """
    rotation = [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    translation = [[1, 0, shift_pixels[0]], [0, 1, shift_pixels[1]], [0, 0, 1]]
    slant = [[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]]
    scale = np.diag([zoom[0], zoom[1], 1])
    row, column = size[0] / 2 - 0.5, size[1] / 2 - 0.5
    there: list[list[float]] = [[1, 0, row], [0, 1, column], [0, 0, 1]]
    factors = [np.asarray(factor) for factor in (there, rotation, translation, slant, scale)]
    return np.asarray(np.linalg.multi_dot([*factors, np.linalg.inv(there)]))


@settings(deadline=None, max_examples=25)
@given(
    theta=st.floats(-0.5, 0.5),
    moved=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
    shear=st.floats(-0.5, 0.5),
    zoom=st.tuples(st.floats(0.7, 1.3), st.floats(0.7, 1.3)),
    size=st.tuples(st.integers(20, 28), st.integers(20, 28)),
)
def test_affine_equals_scipy(
    theta: float, moved: Any, shear: float, zoom: Any, size: tuple[int, int]
) -> None:
    """Affine maps resample like scipy.ndimage with keras_preprocessing's matrix."""
    images = IMAGES[:2, : size[0], : size[1]]
    turned, slanted = np.array([theta, 0.0]), np.array([shear, 0.0])
    matrices = affine_matrices(
        size, turned, np.array([moved, (0, 0)]), slanted, np.array([zoom, (1, 1)])
    )
    matrix = tutorial_matrix(theta, moved, shear, zoom, size)
    np.testing.assert_allclose(matrices[0], matrix, atol=1e-12)
    expected = ndimage.affine_transform(
        images[0], matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest"
    )
    changed = transform(images, matrices)
    # TensorFlow computes coordinates in float32. An error of 1e-5 pixels between black and white
    # changes the value by 0.003 of 255.
    np.testing.assert_allclose(changed[0], expected, atol=0.1)
    np.testing.assert_allclose(changed[1], images[1], atol=0.1)


def test_units_of_shear_differ() -> None:
    """A shear of 0.3 radians is visible, and a shear of 0.3 degrees is hardly visible."""
    plain = affine(0, 0, 0, 0)(IMAGES, TARGETS, generator())[0]
    degrees = affine(0, 0, 0.3, 0)(IMAGES, TARGETS, generator())[0]
    radians = affine(0, 0, float(np.rad2deg(0.3)), 0)(IMAGES, TARGETS, generator())[0]
    assert abs(degrees - plain).mean() < 1 < abs(radians - plain).mean()


def test_affine_moves_are_within_their_limits() -> None:
    """A shift of 0.08 moves a dot by up to 0.08 of the side."""
    dots = np.zeros((500, 29, 29), np.float32)
    dots[:, 14, 14] = 255
    moved, _ = affine(0, 0.08, 0, 0)(dots, TARGETS[:1].repeat(500, 0), generator())
    rows = (moved.sum(axis=2) @ np.arange(29)) / moved.sum(axis=(1, 2)) - 14
    assert 0.07 * 29 < abs(rows).max() <= 0.08 * 29 + 0.01


def test_flip_mirrors_about_half() -> None:
    """About half of the images become their mirror image, and the others stay."""
    flipped, targets = flip(IMAGES, TARGETS, generator())
    mirrored = (flipped == IMAGES[:, :, ::-1]).all(axis=(1, 2))
    assert (mirrored | (flipped == IMAGES).all(axis=(1, 2))).all()
    assert 0.35 < mirrored.mean() < 0.65
    assert targets is TARGETS


def test_shift_moves_whole_pixels_over_black() -> None:
    """Images move by up to two pixels each way over black, and all 25 moves occur."""
    shifted, _ = shift(2)(IMAGES, TARGETS, generator())
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2)))
    moves = [
        (shifted == padded[:, r : r + 28, c : c + 28]).all(axis=(1, 2))
        for r in range(5)
        for c in range(5)
    ]
    assert np.any(moves, axis=0).all()
    assert np.any(moves, axis=1).all()


def test_cutout_blacks_out_at_most_its_square() -> None:
    """The changed pixels are a black rectangle inside a square of the given side."""
    white = np.full_like(IMAGES, 255)
    changed, _ = cutout(8)(white, TARGETS, generator())
    for black in changed == 0:
        rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
        assert np.ptp(rows) < 8
        assert np.ptp(columns) < 8
        assert black.sum() == len(rows) * len(columns)


@pytest.mark.parametrize("step", [mixup(1.0), cutmix(1.0), fmix])
def test_mixes_keep_targets_in_step_with_pixels(step: Any) -> None:
    """Class 0 is black and class 1 is white, so a mixed target equals the share of white."""
    labels = np.arange(300) % 2
    plain = np.broadcast_to(labels[:, None, None] * np.float32(255), IMAGES.shape)
    targets = np.eye(2, dtype=np.float32)[labels]
    mixed, mixed_targets = step(plain, targets, generator())
    np.testing.assert_allclose(mixed.mean(axis=(1, 2)) / 255, mixed_targets[:, 1], atol=1e-5)
    np.testing.assert_allclose(mixed_targets.sum(axis=1), 1, atol=1e-6)
    assert np.std(mixed_targets[:, 1]) > 0.1


def test_masks_of_fmix_are_large_patches() -> None:
    """Neighbours in a mixture of the basis are alike, so a threshold gives few large patches."""
    basis = make_smooth_basis((28, 20))
    smooth = generator().standard_normal((100, len(basis))) @ basis
    mask = (smooth > np.median(smooth, axis=1, keepdims=True)).reshape(100, 28, 20)
    assert mask.mean() == pytest.approx(0.5, abs=0.01)
    assert (mask[:, 1:] != mask[:, :-1]).mean() < 0.1
    assert (mask[:, :, 1:] != mask[:, :, :-1]).mean() < 0.1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_depends_only_on_its_generator(name: str) -> None:
    """Equal generators give equal batches. Shapes, types and the range 0..255 do not change."""

    def augment(seed: int) -> Any:
        batch = IMAGES, TARGETS
        randomness = generator(seed)
        for step in AUGMENTATIONS[name]:
            batch = step(*batch, randomness)
        return batch

    (first, targets), (second, _), (other, _) = augment(1), augment(1), augment(2)
    assert (first == second).all()
    assert name == "none" or (first != other).any()
    assert (first.shape, first.dtype, targets.dtype) == (IMAGES.shape, np.float32, np.float32)
    assert first.min() >= 0
    assert first.max() <= 255


def test_affine_is_fast() -> None:
    """Batches of 500 are at least three times as fast as single images."""
    images = np.resize(IMAGES, (10_000, 28, 28))
    step = AUGMENTATIONS["tutorial-radians"][0]
    step(images[:1], TARGETS, generator())
    started = time.monotonic()
    for start in range(0, 10_000, 500):
        step(images[start : start + 500], TARGETS, generator())
    together = time.monotonic() - started
    started = time.monotonic()
    for start in range(500):
        step(images[start : start + 1], TARGETS, generator())
    assert together < 20 * (time.monotonic() - started) / 3


def test_photographic_adds_backgrounds_to_most_images() -> None:
    """About 60 % of the images get a grey background, and the others keep the black one."""
    images, targets, random = IMAGES, TARGETS, generator()
    for step in AUGMENTATIONS["photographic"]:
        images, targets = step(images, targets, random)
    assert (images.dtype, images.shape) == (IMAGES.dtype, IMAGES.shape)
    assert images.min() >= 0
    assert images.max() <= 255
    assert (targets == TARGETS).all()
    corners = images[:, :3, :3].mean(axis=(1, 2))
    assert 0.45 < (corners > 3).mean() < 0.85
    assert corners.max() < 255


def test_sometimes_changes_the_requested_share() -> None:
    """The requested share of images changes, and the other images stay exact."""
    step = sometimes(0.3, lambda images, targets, _: (images + 1, targets))
    images, _ = step(
        np.zeros((5_000, 2, 2), np.float32), np.zeros((5_000, 1), np.float32), generator()
    )
    assert (images == images[:, :1, :1]).all()
    assert images.mean() == pytest.approx(0.3, abs=0.03)


def test_blur_softens_a_quarter_and_halves_a_tenth() -> None:
    """A quarter of the images is blurred, a tenth has half the resolution, and the rest stays."""
    noise = generator(2).uniform(0, 255, (2_000, 8, 8)).astype(np.float32)
    changed, _ = blur(noise, np.zeros((2_000, 1), np.float32), generator())
    halved = (changed == noise[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)).all(axis=(1, 2))
    kept = (changed == noise).all(axis=(1, 2))
    assert halved.mean() == pytest.approx(0.10, abs=0.02)
    assert kept.mean() == pytest.approx(0.65, abs=0.03)
    soft = ~halved & ~kept
    assert (changed[soft].std(axis=(1, 2)) < 0.9 * noise[soft].std(axis=(1, 2))).all()


def test_deployment_keeps_items_on_black() -> None:
    """Pixels stay in range, targets stay, and the background stays nearly black."""
    images, targets, random = IMAGES, TARGETS, generator()
    for step in AUGMENTATIONS["deployment"]:
        images, targets = step(images, targets, random)
        assert images.dtype == np.float32
        assert images.shape == IMAGES.shape
        assert images.min() >= 0
        assert images.max() <= 255
    assert (targets == TARGETS).all()
    assert np.median(images[:, 0]) < 40
    assert images.mean() < IMAGES.mean()
