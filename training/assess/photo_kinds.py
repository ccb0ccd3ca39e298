"""The kinds of pictures that bundles are measured on. Training does not see these pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.photos.table import GROUPS, Photo, is_validation, read_photos
from training.data.photos.uploads import Maker, draw_figure, enlarge_image, make_product_photo
from training.data.photos.varied import paste_item
from training.data.photos.worn import WornItem, read_worn
from training.data.samples import Samples
from training.errors import DataError

SHOES_AND_BAGS = (*GROUPS["shoe"], *GROUPS["bag"])
# A source and a tier in labels.csv.
SHOP, WORN = "retail-demo-store", "B"

MADE_PICTURES = 1_000
ENLARGED_PIXELS = (32, 800)
SEED = 7


@dataclass(frozen=True)
class Kind:
    """A kind of pictures, and the goals for the shares of answers, None without a goal.

    All goals are minimum shares. But if the pictures do not show a class, ``accepted`` is a maximum
    share.
    """

    name: str
    correct_class: float | None = None
    correct_group: float | None = None
    accepted: float | None = None
    shows_class: bool = True


HOME = Kind("home: one garment or bag, unworn", 0.92, 0.98, 0.97)
HOME_SHOES = Kind("home: pairs of sandals, sneakers or boots", 0.90, 0.99, 0.97)
HOME_SOME_SHOE = Kind("home: pairs of other shoes", None, 0.99, 0.97)
STREET = Kind("worn: street photos, cropped to a garment, shoe or bag", 0.85, 0.94, 0.97)
WHITE_SHOES = Kind("made: shoes and bags on white", 0.92, 0.99, 0.97)
WHITE_GARMENTS = Kind("made: garments on white")
ENLARGED = Kind("made: images of the data set, enlarged", 0.96)
FIGURES = Kind("made: images of the data set, drawn with a colour map", 0.96)
HOME_THINGS = Kind("no class: hats, skirts and shorts at home", accepted=0.08, shows_class=False)
SHOP_THINGS = Kind("no class: things of a shop", accepted=0.08, shows_class=False)
WORN_THINGS = Kind("no class: worn small things, pasted on white", accepted=0.08, shows_class=False)

KINDS = (
    HOME,
    HOME_SHOES,
    HOME_SOME_SHOE,
    STREET,
    WHITE_SHOES,
    WHITE_GARMENTS,
    ENLARGED,
    FIGURES,
    HOME_THINGS,
    SHOP_THINGS,
    WORN_THINGS,
)
MADE_KINDS = (WHITE_SHOES, WHITE_GARMENTS, ENLARGED, FIGURES)
"""The kinds that are made from images of the data set, so that anyone may publish the pictures."""


@dataclass(frozen=True)
class Picture:
    """The bytes of an image file and its possible classes, empty if it shows nothing of any class.

    ``name`` says in errors which picture it is.
    """

    name: str
    data: bytes
    classes: tuple[int, ...]


Pictures = tuple[Kind, list[Picture]]


def read_photo_kinds(folder: Path) -> Iterator[Pictures]:
    """Read the validation photos of ``labels.csv`` that belong to a kind, one kind at a time.

    Raises:
        DataError: The table or a photo cannot be read, or no photo is for validation.
    """
    files = defaultdict(list)
    for photo in read_photos(folder):
        kind = _find_kind(photo)
        if kind is not None and is_validation(photo.file):
            files[kind].append(photo)
    if not files:
        raise DataError(
            f"{folder} has no photo for validation: add photos; a tenth of them, chosen by the "
            "file's name, is for validation"
        )
    for kind, photos in files.items():
        yield kind, [_open(folder / photo.file, photo.classes) for photo in photos]


def crop_worn_kinds(folder: Path) -> Iterator[Pictures]:
    """Cut worn items out of the validation photos with masks: those of a class, then small things.

    Raises:
        DataError: The table, the tags, a mask or a photo cannot be read.
    """
    items = [item for photo in read_worn(folder, validation=True) for item in photo.items]
    yield STREET, [_crop(item) for item in items if item.classes]
    generator = np.random.default_rng(SEED)
    yield WORN_THINGS, [_paste_on_white(item, generator) for item in items if item.small]


def make_upload_kinds(samples: Samples) -> Iterator[Pictures]:
    """Make pictures of each kind from the first images of ``samples``. They are always the same."""
    on_white = partial(make_product_photo, on_white=True)
    enlarge = partial(enlarge_image, sides_pixels=ENLARGED_PIXELS)
    is_small = np.isin(samples.labels, SHOES_AND_BAGS)
    everything = np.ones_like(is_small)
    yield WHITE_SHOES, _make(on_white, samples, is_small)
    yield WHITE_GARMENTS, _make(on_white, samples, ~is_small)
    yield ENLARGED, _make(enlarge, samples, everything)
    yield FIGURES, _make(draw_figure, samples, everything)


def encode_images(samples: Samples) -> list[Picture]:
    """Turn the images of the data set into pictures, pixel for pixel."""
    pairs = zip(samples.images, samples.labels.tolist(), strict=True)
    return [_encode("image", Image.fromarray(image), (label,)) for image, label in pairs]


def _find_kind(photo: Photo) -> Kind | None:
    """Find a photo's kind. None: there are too few photos like it."""
    if photo.tier == WORN:
        return None
    if not photo.classes:
        return SHOP_THINGS if photo.source == SHOP else HOME_THINGS
    if photo.source == SHOP:
        return None
    if set(photo.classes) <= set(GROUPS["shoe"]):
        return HOME_SHOES if len(photo.classes) == 1 else HOME_SOME_SHOE
    return HOME


def _make(make: Maker, samples: Samples, chosen: NDArray[np.bool_]) -> list[Picture]:
    generator = np.random.default_rng(SEED)
    numbers = np.flatnonzero(chosen)[:MADE_PICTURES].tolist()
    return [
        _encode("made picture", make(samples.images[each], generator), (int(samples.labels[each]),))
        for each in numbers
    ]


def _crop(item: WornItem) -> Picture:
    photo, _ = item.open()
    return _encode(str(item.file), photo.crop(item.box), item.classes)


def _paste_on_white(item: WornItem, generator: np.random.Generator) -> Picture:
    white = Image.new("RGB", (1, 1), "white")
    return _encode(str(item.file), paste_item(item, white, generator), item.classes)


def _encode(name: str, image: Image.Image, classes: tuple[int, ...]) -> Picture:
    """Encode a picture as PNG, which loses nothing."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Picture(name, buffer.getvalue(), classes)


def _open(path: Path, classes: tuple[int, ...]) -> Picture:
    try:
        return Picture(str(path), path.read_bytes(), classes)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
