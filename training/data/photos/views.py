"""Own labelled photos: their table, and what the service makes of them for a network to learn from."""

from __future__ import annotations

import csv
import hashlib
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from service.imaging import read_image
from training.data.photos.synthetic import GROUNDS, make_uploads
from training.data.samples import Images, Samples
from training.data.sources.folder import MAX_PIXELS
from training.errors import DataError

LABELS_FILE = "labels.csv"
VIEWS = 6  # of each photo
UPLOADS_A_GROUND = 2_500

Part = Literal["none", "half", "all"]
"""Which of the photos a network learns from: half are those that the rules of ``service.item`` were chosen on."""


@dataclass(frozen=True)
class Photo:
    """A labelled photo: ``classes`` are those that it may be, none for a thing of no class."""

    file: str
    classes: tuple[int, ...]
    tier: str
    source: str

    @property
    def is_developed_on(self) -> bool:
        """Whether it is of the half of the photos that the rules of ``service.item`` were chosen on."""
        return zlib.crc32(self.file.encode()) % 2 == 0


@dataclass(frozen=True)
class Views:
    """What the service sees of photos ``[N, H, W]``, and the probability of each class ``[N, classes]``."""

    images: Images
    targets: NDArray[np.float32]


def hash_photos(folder: Path) -> str:
    """Hash the table and the photos that it names, in its order.

    Raises:
        DataError: The table or a photo cannot be read.
    """
    digest = hashlib.sha256()
    for name in [LABELS_FILE, *(photo.file for photo in read_photos(folder))]:
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def read_photos(folder: Path) -> list[Photo]:
    """Read ``labels.csv`` of a folder of photos: ``file, class_id``, and ``tier, source`` where they are known.

    ``class_id`` is empty for a thing of no class, and several joined by ``|`` where the class is one of them.

    Raises:
        DataError: There is no such file, or it lacks a column.
    """
    try:
        with (folder / LABELS_FILE).open(encoding="utf-8", newline="") as file:
            return [
                Photo(
                    row["file"],
                    tuple(int(class_id) for class_id in row["class_id"].split("|") if class_id),
                    row.get("tier", ""),
                    row.get("source", ""),
                )
                for row in csv.DictReader(file)
            ]
    except OSError as error:
        raise DataError(f"{folder / LABELS_FILE} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / LABELS_FILE} is not a table of photos: {error!r}") from error


def see_photos(folder: Path, part: Part, samples: Samples, class_count: int, seed: int) -> Views:
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
