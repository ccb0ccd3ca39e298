"""The augmentations. Each is a sequence of steps that change a whole batch.

A step is a function (images float32 ``[N, H, W]`` in 0..255, targets float32 ``[N, classes]``,
generator) -> (changed images, changed targets). All randomness comes from the generator, so equal
generators give equal batches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from training.errors import TrainingError

Pixels = NDArray[np.float32]
Targets = NDArray[np.float32]
Batch = tuple[Pixels, Targets]
Step = Callable[[Pixels, Targets, np.random.Generator], Batch]


def flip(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
    """Mirror half of the images left to right."""
    chosen = generator.random(len(images)) < 0.5
    return np.where(chosen[:, None, None], images[:, :, ::-1], images), targets


def shift(padding_pixels: int) -> Step:
    """Return a step that moves images by up to ``padding_pixels``, and fills with black."""

    def step(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
        count, height, width = images.shape
        margin = (padding_pixels, padding_pixels)
        padded = np.pad(images, ((0, 0), margin, margin))
        top, left = generator.integers(0, 2 * padding_pixels + 1, (2, count, 1))
        rows, columns = top + np.arange(height), left + np.arange(width)
        numbers = np.arange(count)[:, None, None]
        return padded[numbers, rows[:, :, None], columns[:, None, :]], targets

    return step


def cutout(side_pixels: int) -> Step:
    """Return cutout (DeVries and Taylor 2017): a black square at a random place.

    The square may extend beyond the edge.
    """

    def step(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
        box = _boxes(images.shape, side_pixels, side_pixels, generator)
        return np.where(box, np.float32(0), images), targets

    return step


def mixup(alpha: float) -> Step:
    """Return mixup (Zhang et al. 2017): blend each image and target with others of the batch."""

    def step(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
        share = generator.beta(alpha, alpha, (len(images), 1)).astype(np.float32)
        other = generator.permutation(len(images))
        blended = share[:, :, None] * images + (1 - share[:, :, None]) * images[other]
        return blended, share * targets + (1 - share) * targets[other]

    return step


def cutmix(alpha: float) -> Step:
    """Return CutMix (Yun et al. 2019): paste a box of another image.

    The box's area is the other image's share of the target.
    """

    def step(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
        count, height, width = images.shape
        side = np.sqrt(1 - generator.beta(alpha, alpha, (count, 1, 1)))
        box = _boxes(images.shape, side * height, side * width, generator)
        share = 1 - box.mean(axis=(1, 2), dtype=np.float32)[:, None]
        other = generator.permutation(count)
        return np.where(box, images[other], images), share * targets + (1 - share) * targets[other]

    return step


def fmix(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
    """Apply FMix (Harris et al. 2020): paste random patches of another image, mix targets by area.

    The share of the other image is uniform, as with the paper's alpha of 1.
    """
    count, height, width = images.shape
    basis = make_smooth_basis((height, width))
    smooth = generator.standard_normal((count, len(basis)), np.float32) @ basis
    ranks = smooth.argsort(axis=1).argsort(axis=1)
    mask = (ranks < generator.random((count, 1)) * height * width).reshape(images.shape)
    share = 1 - mask.mean(axis=(1, 2), dtype=np.float32)[:, None]
    other = generator.permutation(count)
    return np.where(mask, images[other], images), share * targets + (1 - share) * targets[other]


@functools.cache
def make_smooth_basis(size: tuple[int, int]) -> Pixels:
    """Return B images ``[B, H * W]`` whose random mixtures are smooth, for the masks of FMix.

    They are the waves of a Fourier transform, divided by the cube of their frequency.
    """
    frequencies = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1]))
    strengths = 1 / np.maximum(frequencies, 1 / max(size)) ** 3
    spectra = np.diag(strengths.ravel()).reshape(-1, *strengths.shape)
    waves = np.fft.irfft2(np.concatenate([spectra, 1j * spectra]), size)
    return waves.reshape(len(waves), -1).astype(np.float32)


def affine(
    rotation_degrees: float, shift_share: float, shear_degrees: float, zoom_share: float
) -> Step:
    """Return the random affine map of Keras' old ImageDataGenerator.

    It interpolates bilinearly and fills with the nearest pixel. Rotation, shift and shear are drawn
    uniformly from -limit to limit. Zoom is drawn from 1 - limit to 1 + limit, separately for height
    and width.
    """

    def step(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
        count, height, width = images.shape
        rotation = np.deg2rad(generator.uniform(-rotation_degrees, rotation_degrees, count))
        shear = np.deg2rad(generator.uniform(-shear_degrees, shear_degrees, count))
        moved = generator.uniform(-shift_share, shift_share, (count, 2)) * (height, width)
        zoom = generator.uniform(1 - zoom_share, 1 + zoom_share, (count, 2))
        matrices = affine_matrices((height, width), rotation, moved, shear, zoom)
        return transform(images, matrices), targets

    return step


def affine_matrices(
    size: tuple[int, int],
    rotation: NDArray[np.float64],
    moved: NDArray[np.float64],
    shear: NDArray[np.float64],
    zoom: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Compose matrices ``[N, 3, 3]`` that map an output pixel (row, column, 1) to an input pixel.

    The origin is the image's centre. The order (rotation, shift, shear, zoom) and the signs follow
    ``apply_affine_transform`` of keras_preprocessing 1.1. Angles are in radians ``[N]``. ``moved``
    is in pixels and ``zoom`` is a factor, both for (rows, columns) ``[N, 2]``.
    """
    one, zero = np.ones_like(rotation), np.zeros_like(rotation)
    cosine, sine = np.cos(rotation), np.sin(rotation)
    centre_row, centre_column = ((size[0] - 1) / 2 * one, (size[1] - 1) / 2 * one)
    return (
        _matrices([[one, zero, centre_row], [zero, one, centre_column]])
        @ _matrices([[cosine, -sine, zero], [sine, cosine, zero]])
        @ _matrices([[one, zero, moved[:, 0]], [zero, one, moved[:, 1]]])
        @ _matrices([[one, -np.sin(shear), zero], [zero, np.cos(shear), zero]])
        @ _matrices([[zoom[:, 0], zero, zero], [zero, zoom[:, 1], zero]])
        @ _matrices([[one, zero, -centre_row], [zero, one, -centre_column]])
    )


def pose(rotation_degrees: float, shift_share: float, smallest: float, largest: float) -> Step:
    """Return a random rotation, shift and scaling, and fill with black.

    The scale is from ``smallest`` to ``largest``, separately for height and width.
    """

    def step(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
        count, height, width = images.shape
        rotation = np.deg2rad(generator.uniform(-rotation_degrees, rotation_degrees, count))
        moved = generator.uniform(-shift_share, shift_share, (count, 2)) * (height, width)
        zoom = 1 / generator.uniform(smallest, largest, (count, 2))
        matrices = affine_matrices((height, width), rotation, moved, np.zeros(count), zoom)
        return transform(images, matrices, "constant"), targets

    return step


def tone(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
    """Change gamma (0.61 to 1.65) and gain (0.5 to 1.1), to imitate other exposures and fabrics."""
    gamma = np.exp(generator.uniform(-0.5, 0.5, (len(images), 1, 1)))
    gain = generator.uniform(0.5, 1.1, (len(images), 1, 1))
    return (255 * gain * (images / 255) ** gamma).clip(0, 255).astype(np.float32), targets


def shadow(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
    """Darken each image gradually towards one side, by up to half."""
    strength = generator.uniform(0, 0.5, (len(images), 1, 1))
    return (images * (1 - strength * _ramps(images.shape, generator))).astype(np.float32), targets


def blur(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
    """Blur a quarter of the images (sigma 0.5 to 1 pixel), and halve the resolution of a tenth."""
    kind = generator.random(len(images))
    blurred, halved = images.copy(), kind > 0.9
    soft = kind < 0.25
    blurred[soft] = gaussian_filter(images[soft], (0, *(generator.uniform(0.5, 1, 1).repeat(2))))
    rows, columns = (np.arange(size) // 2 * 2 for size in images.shape[1:])
    blurred[halved] = images[halved][:, rows][:, :, columns]
    return blurred, targets


def residue(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
    """Lighten the background of half of the images by up to about 40, unevenly and with noise.

    This imitates what remains of a photo's background after the item is cut out.
    """
    level = generator.uniform(0, 40, (len(images), 1, 1))
    level = level * (generator.random((len(images), 1, 1)) < 0.5)
    uneven = level * _ramps(images.shape, generator)
    remains = uneven + level * generator.normal(0, 0.1, images.shape)
    return np.maximum(images, remains).clip(0, 255).astype(np.float32), targets


def put_on_background(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
    """Change the item's tone and put it on an uneven, patchy and noisy grey background.

    Its base level is at most 125, because the service negates images on light backgrounds.
    """
    count, height, width = images.shape
    opacity = (images / 24).clip(0, 1)  # the data set's background is 0, so it is transparent
    items, targets = tone(images, targets, generator)
    limits = ((125,), (25,), (8,))
    level, patchiness, noise = generator.uniform(0, limits, (3, count))[..., None, None]
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    patches = generator.normal(size=(count, 8, 8))[:, rows][:, :, columns]
    background = level * (0.7 + 0.6 * _ramps(images.shape, generator))
    soft_patches = gaussian_filter(patches, (0, 1.5, 1.5))
    background += patchiness * soft_patches + noise * generator.normal(size=images.shape)
    blended = opacity * items + (1 - opacity) * background
    return blended.clip(0, 255).astype(np.float32), targets


def sometimes(share: float, *steps: Step) -> Step:
    """Return a step that applies steps to a random ``share`` of the images. Targets stay."""

    def step(images: Pixels, targets: Targets, generator: np.random.Generator) -> Batch:
        chosen, changed = generator.random(len(images)) < share, images
        for inner in steps:
            changed, _ = inner(changed, targets, generator)
        return np.where(chosen[:, None, None], changed, images), targets

    return step


def _ramps(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw a ramp from about 0 to about 1 in a random direction for each image: ``[N, H, W]``."""
    angle = generator.uniform(0, 2 * np.pi, (shape[0], 1, 1))
    rows, columns = (np.linspace(-0.5, 0.5, size) for size in shape[1:])
    return (0.5 + np.sin(angle) * rows[:, None] + np.cos(angle) * columns).clip(0, 1)


def transform(images: Pixels, matrices: NDArray[np.float64], fill_mode: str = "nearest") -> Pixels:
    """Resample images ``[N, H, W]`` with matrices ``[N, 3, 3]`` on Keras' backend."""
    (a, b, c), (d, e, f) = np.moveaxis(matrices[:, :2], 0, -1)
    # Keras expects (column, row), but the matrices are for (row, column).
    vectors = np.stack([e, d, f, b, a, c, 0 * a, 0 * a], axis=1).astype(np.float32)
    moved = keras.ops.image.affine_transform(
        images[..., None],
        vectors,
        interpolation="bilinear",
        fill_mode=fill_mode,
        data_format="channels_last",
    )
    return np.asarray(keras.ops.convert_to_numpy(moved)[..., 0])


def _matrices(rows: list[list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    zero, one = np.zeros_like(rows[0][0]), np.ones_like(rows[0][0])
    return np.stack([np.stack(row, axis=-1) for row in [*rows, [zero, zero, one]]], axis=-2)


def _boxes(
    shape: tuple[int, ...],
    height: NDArray[np.float64] | float,
    width: NDArray[np.float64] | float,
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """Draw a mask ``[N, H, W]`` with one box for each image. Its centre is random."""
    row, column = (generator.uniform(0, size, (shape[0], 1, 1)) for size in shape[1:])
    rows = np.arange(shape[1])[None, :, None] + 0.5
    columns = np.arange(shape[2])[None, None, :] + 0.5
    return np.asarray((abs(rows - row) < height / 2) & (abs(columns - column) < width / 2))


# The tutorials use shear_range=0.3. Keras took this value as radians (17.2 degrees) until its pull
# request 8868 of December 2017, and takes it as degrees since then.
AUGMENTATIONS: Mapping[str, tuple[Step, ...]] = {
    "none": (),
    "flip-shift": (flip, shift(2)),
    "tutorial-degrees": (affine(8, 0.08, 0.3, 0.08),),
    "tutorial-radians": (affine(8, 0.08, float(np.rad2deg(0.3)), 0.08),),
    "modern-cutout": (flip, shift(2), cutout(8)),
    "modern-mixup": (flip, shift(2), mixup(0.2)),
    "modern-cutmix": (flip, shift(2), cutmix(1.0)),
    # Flips and crops with a padding of 4 pixels, as in the code of FMix for Fashion-MNIST.
    "fmix": (flip, shift(4), fmix),
    "mixup": (flip, shift(4), mixup(1.0)),
    # Imitates the faults of a garment that was cut out of a photo and scaled down.
    "deployment": (flip, pose(12, 0.1, 0.7, 1.1), tone, shadow, blur, residue),
    # Imitates a photo without a cut-out. A quarter of the images is only flipped and shifted, so
    # that the network does not forget the data set's own images.
    "photographic": (
        flip,
        shift(2),
        sometimes(0.75, pose(12, 0.1, 0.7, 1.1), sometimes(0.8, put_on_background), shadow, blur),
    ),
}


def find_augmentation(name: str) -> tuple[Step, ...]:
    """Look up the steps of an augmentation by name.

    Raises:
        TrainingError: There is no augmentation of this name.
    """
    try:
        return AUGMENTATIONS[name]
    except KeyError:
        raise TrainingError(
            f"there is no augmentation {name!r}; choose one of {', '.join(AUGMENTATIONS)}"
        ) from None
