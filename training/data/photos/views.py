"""What the service sees of photos."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from service.errors import InvalidRequestError
from service.imaging import read_image
from training.data.photos.synthetic import GROUNDS, make_uploads
from training.data.photos.table import LABELS_FILE, Part, read_photos
from training.data.samples import Images, Samples
from training.data.sources.folder import MAX_PIXELS
from training.errors import DataError

VIEWS = 6  # of each photo
UPLOADS_A_GROUND = 2_500


@dataclass(frozen=True)
class Views:
    """What the service sees of photos ``[N, H, W]``, and the probability of each class ``[N, classes]``."""

    images: Images
    targets: NDArray[np.float32]


def make_views(folder: Path, part: Part, samples: Samples, class_count: int, seed: int) -> Views:
    """See photos as the service does, to learn from: photos of a class, and uploads made of images of the data set.

    Each photo is seen a few times, with other edges, tones and compression. One that may be of several classes is of
    each alike.

    Raises:
        DataError: The table or a photo cannot be read.
    """
    generator = np.random.default_rng(seed)
    size = samples.input_size
    images, targets = [], []
    for photo in read_photos(folder):
        if not photo.classes or (part == "half" and not photo.is_developed_on):
            continue
        try:
            upload = _open(folder / photo.file)
        except OSError as error:
            raise DataError(f"{folder / photo.file} cannot be read: {error}") from error
        images += [_see(_vary(upload, generator), size) for _ in range(VIEWS)]
        if max(photo.classes) >= class_count:
            raise DataError(
                f"{folder / LABELS_FILE}: {photo.file} is of class {max(photo.classes)} of {class_count}"
            )
        targets += [np.eye(class_count)[list(photo.classes)].mean(axis=0)] * VIEWS
    for number, ground in enumerate(GROUNDS):
        chosen = generator.permutation(len(samples))[:UPLOADS_A_GROUND]
        images += [
            _see(upload, size)
            for upload in make_uploads(samples.images[chosen], ground, seed + number)
        ]
        targets += list(np.eye(class_count)[samples.labels[chosen]])
    return Views(np.stack(images), np.stack(targets).astype(np.float32))


def see_photos(folder: Path, size: tuple[int, int], *, of_classes: bool) -> Images:
    """See the photos that ``labels.csv`` gives a class, or no class, as the service sees uploads: ``[N, H, W]``.

    Raises:
        DataError: The table or a photo cannot be read.
    """
    names = [photo.file for photo in read_photos(folder) if bool(photo.classes) == of_classes]
    try:
        return np.stack(
            [read_image((folder / name).read_bytes(), size, MAX_PIXELS).image for name in names]
        )
    except (OSError, ValueError, InvalidRequestError) as error:
        raise DataError(
            f"{folder} is not a folder of photos of things with and without a class: {error}"
        ) from error


def _see(upload: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    return read_image(upload, size, MAX_PIXELS).image


def _open(path: Path) -> Image.Image:
    """Read a photo upright, and flattened over white, as the service does."""
    rgba = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _vary(photo: Image.Image, generator: np.random.Generator) -> bytes:
    """Cut up to a tenth off each edge, change brightness, contrast and colour by up to 30 %, and save as JPEG."""
    left, top, right, bottom = generator.uniform(0, 0.1, 4) * (photo.size * 2)
    varied = photo.crop(
        (round(left), round(top), round(photo.width - right), round(photo.height - bottom))
    )
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        varied = enhance(varied).enhance(generator.uniform(0.7, 1.3))
    buffer = BytesIO()
    varied.save(buffer, "JPEG", quality=int(generator.integers(50, 95)))
    return buffer.getvalue()
