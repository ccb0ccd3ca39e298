"""The augmentations as functions of JAX, for training in one compiled step.

A step is a function (key, images float32 ``[N, H, W]`` in 0..255, targets float32 ``[N, classes]``)
-> (changed images, changed targets). It does what the step of the same name in ``augmentation``
does. The images of a batch are in random order, so that the next image is a random partner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from training.fit.augmentation import make_smooth_basis

Batch = tuple[jax.Array, jax.Array]
Step = Callable[[jax.Array, jax.Array, jax.Array], Batch]


def flip(key: jax.Array, images: jax.Array, targets: jax.Array) -> Batch:
    """Mirror half of the images left to right."""
    chosen = jax.random.bernoulli(key, 0.5, (len(images), 1, 1))
    return jnp.where(chosen, images[:, :, ::-1], images), targets


def shift(padding_pixels: int) -> Step:
    """Return a step that moves images by up to ``padding_pixels`` each way and fills with black."""

    def step(key: jax.Array, images: jax.Array, targets: jax.Array) -> Batch:
        count, height, width = images.shape
        margin = (padding_pixels, padding_pixels)
        padded = jnp.pad(images, ((0, 0), margin, margin))
        top, left = jax.random.randint(key, (2, count, 1), 0, 2 * padding_pixels + 1)
        rows, columns = top + jnp.arange(height), left + jnp.arange(width)
        numbers = jnp.arange(count)[:, None, None]
        return padded[numbers, rows[:, :, None], columns[:, None, :]], targets

    return step


def cutout(side_pixels: int) -> Step:
    """Return cutout (DeVries and Taylor 2017): a black square, centred anywhere, clipped."""

    def step(key: jax.Array, images: jax.Array, targets: jax.Array) -> Batch:
        side = jnp.full((len(images), 1, 1), side_pixels)
        return jnp.where(_boxes(key, images.shape, side, side), 0, images), targets

    return step


def mixup(alpha: float) -> Step:
    """Return mixup (Zhang et al. 2017): blend each image and target with the next."""

    def step(key: jax.Array, images: jax.Array, targets: jax.Array) -> Batch:
        share = _draw_shares(key, alpha, len(images))
        return _mix(share[..., None], images), _mix(share, targets)

    return step


def cutmix(alpha: float) -> Step:
    """Return CutMix (Yun et al. 2019): paste a box of the next image, mix targets by its area."""

    def step(key: jax.Array, images: jax.Array, targets: jax.Array) -> Batch:
        for_shares, for_boxes = jax.random.split(key)
        side = jnp.sqrt(1 - _draw_shares(for_shares, alpha, len(images)))[..., None]
        height, width = images.shape[1:]
        return _paste(_boxes(for_boxes, images.shape, side * height, side * width), images, targets)

    return step


def fmix(key: jax.Array, images: jax.Array, targets: jax.Array) -> Batch:
    """Apply FMix (Harris et al. 2020): paste random patches of the next image.

    The share of the next image is uniform, as with the paper's alpha of 1.
    """
    for_shares, for_masks = jax.random.split(key)
    count, height, width = images.shape
    basis = make_smooth_basis((height, width))
    smooth = jax.random.normal(for_masks, (count, len(basis))) @ basis
    share = jax.random.uniform(for_shares, (count, 1))
    place = (share * height * width).astype(int)
    limit = jnp.take_along_axis(jnp.sort(smooth, axis=1), place, axis=1)
    return _paste((smooth < limit).reshape(images.shape), images, targets)


def _draw_shares(key: jax.Array, alpha: float, count: int) -> jax.Array:
    """Draw shares ``[N, 1]`` from the symmetric beta distribution."""
    if alpha == 1:
        return jax.random.uniform(key, (count, 1))  # JAX draws other shares in a slow loop
    return jax.random.beta(key, alpha, alpha, (count, 1))


def _mix(share: jax.Array, values: jax.Array) -> jax.Array:
    return share * values + (1 - share) * jnp.roll(values, 1, axis=0)


def _paste(mask: jax.Array, images: jax.Array, targets: jax.Array) -> Batch:
    """Take the next image where the mask ``[N, H, W]`` is set, and mix the targets by its area."""
    share = 1 - mask.mean(axis=(1, 2), dtype=jnp.float32)[:, None]
    return jnp.where(mask, jnp.roll(images, 1, axis=0), images), _mix(share, targets)


def _boxes(
    key: jax.Array, shape: tuple[int, ...], height: jax.Array, width: jax.Array
) -> jax.Array:
    """Draw a mask ``[N, H, W]`` with one box for each image, centred anywhere."""
    row, column = jax.random.uniform(key, (2, shape[0], 1, 1))
    rows = jnp.arange(shape[1])[None, :, None] + 0.5
    columns = jnp.arange(shape[2])[None, None, :] + 0.5
    near_row = jnp.abs(rows - row * shape[1]) < height / 2
    near_column = jnp.abs(columns - column * shape[2]) < width / 2
    return jnp.logical_and(near_row, near_column)


# The augmentations of other recipes have no counterpart here.
COMPILED_AUGMENTATIONS: Mapping[str, tuple[Step, ...]] = {
    "none": (),
    "flip-shift": (flip, shift(2)),
    "modern-cutout": (flip, shift(2), cutout(8)),
    "modern-mixup": (flip, shift(2), mixup(0.2)),
    "modern-cutmix": (flip, shift(2), cutmix(1.0)),
    "fmix": (flip, shift(4), fmix),
    "mixup": (flip, shift(4), mixup(1.0)),
}
