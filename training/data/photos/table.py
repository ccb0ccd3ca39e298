"""The table of labelled photos, ``labels.csv``."""

from __future__ import annotations

import csv
import zlib
from dataclasses import dataclass
from pathlib import Path

from training.errors import DataError

LABELS_FILE = "labels.csv"
GROUPS = {"top": (0, 2, 4, 6), "trouser": (1,), "dress": (3,), "shoe": (5, 7, 9), "bag": (8,)}


@dataclass(frozen=True)
class Photo:
    """A labelled photo. ``classes`` are its possible classes, empty for an object of no class."""

    file: str
    classes: tuple[int, ...]
    tier: str
    source: str


def find_group(class_id: int) -> str | None:
    """Return the name of a class's group, None for a class of no group."""
    return next((name for name, members in GROUPS.items() if class_id in members), None)


def is_validation(file: str) -> bool:
    """Return whether a photo is kept back: a tenth of each folder, chosen by the file's name."""
    return zlib.crc32(file.encode()) % 10 == 0


def read_photos(folder: Path) -> list[Photo]:
    """Read ``labels.csv``: columns ``file`` and ``class_id``, optionally ``tier`` and ``source``.

    ``class_id`` is empty for an object of no class. Several possible classes are joined by ``|``.

    Raises:
        DataError: The file cannot be read, lacks a column or has a class that is not a number.
    """
    path = folder / LABELS_FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [_to_photo(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, AttributeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a table of photos ({error!r}): "
            "it needs the columns file and class_id, and class ids that are numbers"
        ) from error


def _to_photo(row: dict[str, str]) -> Photo:
    classes = tuple(int(class_id) for class_id in row["class_id"].split("|") if class_id)
    if min(classes, default=0) < 0:
        raise ValueError(f"class_id {row['class_id']} is negative")
    return Photo(row["file"], classes, row.get("tier", ""), row.get("source", ""))
