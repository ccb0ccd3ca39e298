"""The search for worn garments in photos whose tags name them, but that have no masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from service.imaging.letterbox import fit_into_box
from training.data.photos.found import FoundItem
from training.data.photos.table import GROUPS
from training.data.photos.worn import Box, UnmaskedPhoto, WornPhoto, read_unmasked, read_worn
from training.errors import DataError

PLACES_A_GROUP = 24
BEST_PLACES = 3  # a found box is their median

RelativeBoxes = NDArray[np.float64]


def find_items(model: Any, folder: Path, size: tuple[int, int]) -> list[FoundItem]:
    """Find the garments that the tags of photos without masks name, one of each group a photo.

    The network ``model`` looks where masks show garments of the same group in other photos. It
    chooses the places by the group's probability alone: the tags say which class of the group it
    is. ``size`` is (height, width) of its input in pixels.

    Raises:
        DataError: The photos of ``folder`` or their table cannot be read.
    """
    places = _find_places(read_worn(folder, validation=False))
    found = []
    for photo in read_unmasked(folder):
        try:
            found += _find_in_photo(model, photo, places, size)
        except OSError as error:
            raise DataError(f"{photo.file} cannot be read: {error}") from error
    return found


def _find_places(photos: Sequence[WornPhoto]) -> dict[str, RelativeBoxes]:
    """Choose boxes of masked garments of each group ``[N, 4]``, as shares of width and height."""
    boxes = defaultdict(list)
    for photo in photos:
        with Image.open(photo.file) as image:
            width, height = image.size
        for item in photo.items:
            for group, members in GROUPS.items():
                if set(item.classes) & set(members):
                    share = np.divide(item.box, (width, height, width, height))
                    boxes[group].append(share)
    generator = np.random.default_rng(0)
    return {
        group: generator.permutation(np.array(found))[:PLACES_A_GROUP]
        for group, found in boxes.items()
    }


def _find_in_photo(
    model: Any, photo: UnmaskedPhoto, places: dict[str, RelativeBoxes], size: tuple[int, int]
) -> list[FoundItem]:
    image = Image.open(photo.file).convert("RGB")
    found = []
    for group, members in GROUPS.items():
        classes = tuple(number for number in photo.classes if number in members)
        if not classes or group not in places:
            continue
        boxes = np.rint(places[group] * (image.size * 2)).astype(int)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)  # a box has a pixel at least
        crops = [fit_into_box(image.crop(tuple(box)), size) for box in boxes.tolist()]
        logits = model.predict_on_batch(np.stack(crops).astype(np.float32))
        scores = softmax(logits, axis=1)[:, list(members)].sum(axis=1)
        best = boxes[np.argsort(-scores)[:BEST_PLACES]]
        found.append(FoundItem(photo.file, _to_box(np.median(best, axis=0)), classes))
    return found


def _to_box(corners: NDArray[np.float64]) -> Box:
    left, top, right, bottom = corners.astype(int).tolist()
    return left, top, right, bottom
