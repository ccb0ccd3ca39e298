"""Model inputs that the service makes from photos: varied for training, unchanged for measuring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from service.errors import InvalidRequestError
from service.imaging import ITEM_ON_BLACK, InputSpec, read_image, read_picture
from training.data.photos.synthetic import BACKGROUNDS, make_photos
from training.data.photos.table import LABELS_FILE, Part, Photo, read_photos
from training.data.samples import Images, Samples
from training.data.sources.folder import MAX_PIXELS
from training.errors import DataError

VIEWS_PER_PHOTO = 6
PHOTOS_PER_BACKGROUND = 2_500


@dataclass(frozen=True)
class Views:
    """Model inputs made from photos, and the probability of each class.

    ``images`` are ``[N, H, W]`` and ``targets`` are ``[N, classes]``.
    """

    images: Images
    targets: NDArray[np.float32]


def make_views(folder: Path, part: Part, samples: Samples, class_count: int, seed: int) -> Views:
    """Make the views that a network learns from: of labelled photos and of synthetic photos.

    Each labelled photo gives several views, randomly cropped, recoloured and compressed. A photo
    with several possible classes gives each of them the same probability. Synthetic photos are made
    from ``samples``.

    Raises:
        DataError: The table or a photo cannot be read.
    """
    generator = np.random.default_rng(seed)
    labelled = _view_labelled(folder, part, samples.input_size, class_count, generator)
    made = _view_samples(samples, class_count, seed, generator)
    images, targets = zip(*labelled, *made, strict=True)
    return Views(np.stack(images), np.stack(targets).astype(np.float32))


def see_photos(folder: Path, size: tuple[int, int], *, of_classes: bool) -> Images:
    """Convert the photos with a class, or those without, to model inputs ``[N, H, W]``.

    Raises:
        DataError: The table or a photo cannot be read.
    """
    names = [photo.file for photo in read_photos(folder) if bool(photo.classes) == of_classes]
    try:
        return np.stack([_see((folder / name).read_bytes(), size) for name in names])
    except (OSError, ValueError, InvalidRequestError) as error:
        kind = "a class" if of_classes else "no class"
        raise DataError(
            f"the photos with {kind} in {folder} cannot be read ({error}): "
            f"{LABELS_FILE} must list at least one, and each file must be an image"
        ) from error


View = tuple[NDArray[np.uint8], NDArray[np.float64]]


def _view_labelled(
    folder: Path,
    part: Part,
    size: tuple[int, int],
    class_count: int,
    generator: np.random.Generator,
) -> Iterator[View]:
    for photo in read_photos(folder):
        if photo.classes and (part == "all" or photo.is_in_development_half):
            target = _target(folder, photo, class_count)
            picture = _open(folder / photo.file)
            for _ in range(VIEWS_PER_PHOTO):
                yield _see(_vary(picture, generator), size), target


def _view_samples(
    samples: Samples, class_count: int, seed: int, generator: np.random.Generator
) -> Iterator[View]:
    one_hot = np.eye(class_count)
    for number, background in enumerate(BACKGROUNDS):
        chosen = generator.permutation(len(samples))[:PHOTOS_PER_BACKGROUND]
        photos = make_photos(samples.images[chosen], background, seed + number)
        for photo, label in zip(photos, samples.labels[chosen], strict=True):
            yield _see(photo, samples.input_size), one_hot[label]


def _target(folder: Path, photo: Photo, class_count: int) -> NDArray[np.float64]:
    if max(photo.classes) >= class_count:
        raise DataError(
            f"{folder / LABELS_FILE}: class_id {max(photo.classes)} of {photo.file} is unknown: "
            f"there are {class_count} classes, 0 to {class_count - 1}"
        )
    return np.asarray(np.eye(class_count)[list(photo.classes)].mean(axis=0))


def _see(photo: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    return read_image(photo, InputSpec(ITEM_ON_BLACK, size), MAX_PIXELS).image


def _open(path: Path) -> Image.Image:
    try:
        return read_picture(path.read_bytes(), MAX_PIXELS).image.convert("RGB")
    except (OSError, InvalidRequestError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _vary(photo: Image.Image, generator: np.random.Generator) -> bytes:
    """Vary a photo at random and save it as JPEG.

    Each edge loses up to a tenth. Brightness, contrast and saturation change by up to 30 %.
    """
    left, top, right, bottom = generator.uniform(0, 0.1, 4) * (photo.size * 2)
    box = (round(left), round(top), round(photo.width - right), round(photo.height - bottom))
    varied = photo.crop(box)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        varied = enhance(varied).enhance(generator.uniform(0.7, 1.3))
    buffer = BytesIO()
    varied.save(buffer, "JPEG", quality=int(generator.integers(50, 95)))
    return buffer.getvalue()
