"""The table of labelled photos, ``labels.csv``."""

from __future__ import annotations

import csv
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.errors import DataError

LABELS_FILE = "labels.csv"

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
