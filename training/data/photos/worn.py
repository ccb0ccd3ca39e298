"""Photos of people with a mask of each garment, and the crops that a network learns from."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.photos.table import LABELS_FILE, is_validation
from training.errors import DataError

TAGS_FILE = "tags.txt"
SOME_SHOE = (5, 7, 9)
# Tags of Clothing Co-Parsing (Yang, Luo and Lin 2014) -> possible classes of Fashion-MNIST.
CLASSES_OF_TAGS = {
    "t-shirt": (0,),
    **dict.fromkeys(("pants", "jeans", "leggings"), (1,)),
    **dict.fromkeys(("sweater", "sweatshirt", "hoodie", "jumper", "cardigan"), (2,)),
    "dress": (3,),
    **dict.fromkeys(("coat", "jacket", "blazer"), (4,)),
    "sandals": (5,),
    **dict.fromkeys(("shirt", "blouse"), (6,)),
    "top": (0, 2, 6),
    "sneakers": (7,),
    **dict.fromkeys(("bag", "purse"), (8,)),
    "boots": (9,),
    **dict.fromkeys(("shoes", "heels", "flats", "pumps", "loafers", "wedges", "clogs"), SOME_SHOE),
}
# Things of no class. A crop around a small one would show the garment behind it, so small things
# are only pasted on other backgrounds.
THINGS = frozenset({"hat", "skirt", "shorts", "scarf", "hair"})
SMALL_THINGS = frozenset(
    {"sunglasses", "glasses", "watch", "belt", "bracelet", "necklace", "tie", "gloves", "socks"}
)
NO_GARMENT = frozenset({"null", "skin", "hair"})
MIN_ITEM_SHARE = 0.003  # of the photo's area: about 20 x 20 of 300 x 448 pixels
MIN_SMALL_SHARE = 0.001

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class WornItem:
    """A garment or a thing in a photo: its ``file`` and ``mask_file``, ``tag`` number and ``box``.

    ``classes`` are its possible classes, empty for a thing of no class. A ``small`` thing has no
    crop of its own.
    """

    file: Path
    mask_file: Path
    tag: int
    box: Box
    classes: tuple[int, ...]
    small: bool

    def open(self) -> tuple[Image.Image, Image.Image]:
        """Read the photo in RGB, and the item's outline: 255 where the item is."""
        mask = _read_mask(self.mask_file) == self.tag
        photo = Image.open(self.file).convert("RGB")
        return photo, Image.fromarray(mask.astype(np.uint8) * 255)


@dataclass(frozen=True)
class WornPhoto:
    """A photo with its mask, and the items that the mask shows."""

    file: Path
    mask_file: Path
    items: tuple[WornItem, ...]
    bare_tags: frozenset[int]
    """The tags that are background, skin or hair."""

    def find_bare(self) -> NDArray[np.bool_]:
        """Return where no garment is ``[H, W]``."""
        return np.isin(_read_mask(self.mask_file), list(self.bare_tags))


@dataclass(frozen=True)
class UnmaskedPhoto:
    """A photo of a person without a mask. Its tags name garments of these ``classes``."""

    file: Path
    classes: tuple[int, ...]


def read_worn(folder: Path, *, validation: bool) -> list[WornPhoto]:
    """Read the photos that have masks: those of training, or those of validation.

    Raises:
        DataError: The table, the tags or a mask cannot be read.
    """
    rows = [row for row in _read_rows(folder) if row["mask"]]
    chosen = [row for row in rows if is_validation(row["file"]) == validation]
    try:
        tags = _read_tags(folder / TAGS_FILE)
        return [_read_photo(folder / row["file"], folder / row["mask"], tags) for row in chosen]
    except (OSError, LookupError, ValueError) as error:
        raise DataError(
            f"{folder} is not a folder of worn garments ({error!r}): it needs {TAGS_FILE} with a "
            "name on each line, the photos, and masks of the photos' size whose pixels are line "
            "numbers of the tags"
        ) from error


def read_unmasked(folder: Path) -> list[UnmaskedPhoto]:
    """Read the photos of training that have tags but no mask, and show a garment.

    Raises:
        DataError: The table cannot be read.
    """
    photos = []
    for row in _read_rows(folder):
        if row["mask"] or is_validation(row["file"]):
            continue
        tags = row["tags"].split("|")
        classes = {number for tag in tags for number in CLASSES_OF_TAGS.get(tag, ())}
        if classes:
            photos.append(UnmaskedPhoto(folder / row["file"], tuple(sorted(classes))))
    return photos


def _read_rows(folder: Path) -> list[dict[str, str]]:
    try:
        with (folder / LABELS_FILE).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        if not all(isinstance(row[name], str) for row in rows for name in ("file", "mask", "tags")):
            raise ValueError("a row is too short")
    except (OSError, LookupError, ValueError, csv.Error) as error:
        raise DataError(
            f"{folder} is not a folder of worn garments ({error!r}): its {LABELS_FILE} needs the "
            "columns file, mask and tags"
        ) from error
    return rows


def _read_tags(path: Path) -> list[str]:
    return [line.split()[-1] for line in path.read_text(encoding="utf-8").splitlines()]


def _read_mask(path: Path) -> NDArray[np.uint8]:
    mask = np.asarray(Image.open(path))
    if mask.ndim != 2:
        raise ValueError(f"{path} has several values a pixel")
    return mask


def _read_photo(file: Path, mask_file: Path, tags: list[str]) -> WornPhoto:
    mask = _read_mask(mask_file)
    with Image.open(file) as photo:
        if (photo.height, photo.width) != mask.shape:
            raise ValueError(f"{mask_file} is not of the size of its photo")
    found = [_find_item(file, mask_file, mask, tag, tags[tag]) for tag in np.unique(mask).tolist()]
    bare = frozenset(number for number, name in enumerate(tags) if name in NO_GARMENT)
    return WornPhoto(file, mask_file, tuple(item for item in found if item), bare)


def _find_item(
    file: Path, mask_file: Path, mask: NDArray[np.uint8], tag: int, name: str
) -> WornItem | None:
    small = name in SMALL_THINGS
    is_used = name in CLASSES_OF_TAGS or name in THINGS or small
    where = mask == tag
    if not is_used or where.mean() < (MIN_SMALL_SHARE if small else MIN_ITEM_SHARE):
        return None
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return WornItem(file, mask_file, tag, box, CLASSES_OF_TAGS.get(name, ()), small)
