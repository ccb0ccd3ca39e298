"""Worn garments that a network found in photos without masks, and the table that keeps them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.photos.worn import Box
from training.errors import DataError

FOUND_FILE = "found.csv"
COLUMNS = ("file", "left", "top", "right", "bottom", "classes")


@dataclass(frozen=True)
class FoundItem:
    """A garment in the photo ``file``, within ``box``. ``classes`` are its possible classes."""

    file: Path
    box: Box
    classes: tuple[int, ...]


def write_found(path: Path, folder: Path, items: Sequence[FoundItem]) -> None:
    """Write a table of the items found in the photos of ``folder``."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for item in items:
            name = item.file.relative_to(folder).as_posix()
            writer.writerow([name, *item.box, "|".join(map(str, item.classes))])


def read_found(path: Path, folder: Path) -> list[FoundItem]:
    """Read the table that ``write_found`` wrote.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_to_item(row, folder) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(
            f"{path} is missing or damaged ({error!r}): the run cannot be resumed, train it again"
        ) from error


def _to_item(row: dict[str, str], folder: Path) -> FoundItem:
    left, top, right, bottom = (int(row[name]) for name in COLUMNS[1:5])
    classes = tuple(map(int, row["classes"].split("|")))
    return FoundItem(folder / row["file"], (left, top, right, bottom), classes)
