"""The corruptions that measure robustness.

The fifteen kinds are taken from Fashion-MNIST-C (Weiss and Tonella 2022), which follows MNIST-C (Mu
and Gilmer 2019). Code and strengths are this project's own. So the figures of this project's models
can be compared with each other, but not with figures published elsewhere.

A corruption is a function (images uint8 ``[N, H, W]``, generator) -> images of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from training.data.samples import Images
from training.fit.augmentation import affine_matrices, transform

Corruption = Callable[[Images, np.random.Generator], Images]


def corrupt(images: Images, name: str, seed: int) -> Images:
    """Corrupt images with the corruption of this name. Equal seeds give equal images."""
    return CORRUPTIONS[name](images, np.random.default_rng((seed, list(CORRUPTIONS).index(name))))


def shot_noise(images: Images, generator: np.random.Generator) -> Images:
    """Replace each pixel by a random photon count. A white pixel has a mean count of 12."""
    return _to_pixels(generator.poisson(images / 255 * 12) / 12 * 255)


def impulse_noise(images: Images, generator: np.random.Generator) -> Images:
    """Turn 9 % of the pixels black or white."""
    struck = generator.random(images.shape) < 0.09
    return np.where(struck, generator.choice(np.array([0, 255], np.uint8), images.shape), images)


def glass_blur(images: Images, generator: np.random.Generator) -> Images:
    """Blur, displace the pixels twice, and blur again. Each blur is Gaussian with sigma 0.6.

    A displaced pixel takes the value of a random pixel that is at most one row and one column away.
    """
    pixels = gaussian_filter(images.astype(np.float32), (0, 0.6, 0.6))
    count, height, width = images.shape
    for _ in range(2):
        rows = np.arange(height)[:, None] + generator.integers(-1, 2, images.shape)
        columns = np.arange(width) + generator.integers(-1, 2, images.shape)
        numbers = np.arange(count)[:, None, None]
        pixels = pixels[numbers, rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return _to_pixels(gaussian_filter(pixels, (0, 0.6, 0.6)))


def motion_blur(images: Images, generator: np.random.Generator) -> Images:
    """Average each pixel along a line of 7 pixels in a random direction."""
    angle = generator.uniform(0, np.pi, len(images))
    direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    moved = [_move(images, moved_pixels=step * direction) for step in range(-3, 4)]
    return _to_pixels(np.mean(moved, axis=0))


def shear(images: Images, generator: np.random.Generator) -> Images:
    """Shear by 25 degrees to the left or right."""
    return _to_pixels(_move(images, shear=np.deg2rad(25) * _sign(images, generator)))


def rotate(images: Images, generator: np.random.Generator) -> Images:
    """Rotate by 30 degrees to the left or right."""
    return _to_pixels(_move(images, rotation=np.deg2rad(30) * _sign(images, generator)))


def scale(images: Images, generator: np.random.Generator) -> Images:
    """Shrink to 60 %."""
    del generator
    return _to_pixels(_move(images, zoom=np.full((len(images), 2), 1 / 0.6)))


def brightness(images: Images, generator: np.random.Generator) -> Images:
    """Add 30 % of white to every pixel."""
    del generator
    return _to_pixels(images + 0.3 * 255)


def contrast(images: Images, generator: np.random.Generator) -> Images:
    """Reduce the differences from the image's mean to 30 %."""
    del generator
    mean = images.mean(axis=(1, 2), keepdims=True)
    return _to_pixels(mean + 0.3 * (images - mean))


def saturate(images: Images, generator: np.random.Generator) -> Images:
    """Double every pixel value. Pixels above half become white."""
    del generator
    return _to_pixels(2.0 * images)


def inverse(images: Images, generator: np.random.Generator) -> Images:
    """Invert black and white."""
    del generator
    return 255 - images


def flip_horizontally(images: Images, generator: np.random.Generator) -> Images:
    """Mirror left to right."""
    del generator
    return images[:, :, ::-1]


def flip_vertically(images: Images, generator: np.random.Generator) -> Images:
    """Mirror top to bottom."""
    del generator
    return images[:, ::-1]


def turn_left(images: Images, generator: np.random.Generator) -> Images:
    """Rotate by 90 degrees to the left if height and width are equal."""
    del generator
    return np.rot90(images, 1, axes=(1, 2)) if images.shape[1] == images.shape[2] else images


def turn_right(images: Images, generator: np.random.Generator) -> Images:
    """Rotate by 90 degrees to the right if height and width are equal."""
    del generator
    return np.rot90(images, -1, axes=(1, 2)) if images.shape[1] == images.shape[2] else images


CORRUPTIONS: Mapping[str, Corruption] = {
    "shot noise": shot_noise,
    "impulse noise": impulse_noise,
    "glass blur": glass_blur,
    "motion blur": motion_blur,
    "shear": shear,
    "rotate": rotate,
    "scale": scale,
    "brightness": brightness,
    "contrast": contrast,
    "saturate": saturate,
    "inverse": inverse,
    "flip left to right": flip_horizontally,
    "flip upside down": flip_vertically,
    "quarter turn left": turn_left,
    "quarter turn right": turn_right,
}


def _move(
    images: Images,
    rotation: NDArray[np.float64] | float = 0.0,
    moved_pixels: NDArray[np.float64] | float = 0.0,
    shear: NDArray[np.float64] | float = 0.0,
    zoom: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float32]:
    count, height, width = images.shape

    def each(values: Any, *shape: int) -> NDArray[np.float64]:
        return np.broadcast_to(np.asarray(values, np.float64), (count, *shape))

    matrices = affine_matrices(
        (height, width), each(rotation), each(moved_pixels, 2), each(shear), each(zoom, 2)
    )
    return transform(images.astype(np.float32), matrices, "constant")


def _sign(images: Images, generator: np.random.Generator) -> NDArray[np.float64]:
    return generator.choice([-1.0, 1.0], len(images))


def _to_pixels(values: NDArray[np.floating[Any]]) -> Images:
    return values.round().clip(0, 255).astype(np.uint8)
