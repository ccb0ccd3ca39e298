"""Worn garments found in photos without masks, by a network that sees a colour."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.training.data.photos.folders import (
    DRESS,
    PARTS,
    SHOES,
    choose_names,
    draw_person,
    write_worn_folder,
)
from training.data.photos.found import FOUND_FILE, read_found, write_found
from training.errors import DataError
from training.fit.finder import find_items

SIZE = (32, 32)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A network of 11 logits: the redder the picture, the more it is a dress, green are shoes."""
    images = keras.Input((*SIZE, 3))
    logits = keras.layers.Dense(11)(keras.layers.GlobalAveragePooling2D()(images))
    network = keras.Model(images, logits)
    weights = np.zeros((3, 11), np.float32)
    weights[:, 3], weights[:, 7] = (0.1, -0.1, -0.1), (-0.1, 0.1, -0.1)
    network.layers[-1].set_weights([weights, np.zeros(11, np.float32)])
    return network


def test_garments_are_found_where_they_are(network: keras.Model, tmp_path: Path) -> None:
    """One item of each group of the tags is found, at its place. The scarf is of no class."""
    folder = write_worn_folder(tmp_path / "folder")
    dress, shoes = find_items(network, folder, SIZE)
    unmasked = folder / choose_names(3, validation=False)[-1]
    assert (dress.file, dress.box, dress.classes) == (unmasked, PARTS[DRESS], (3,))
    assert (shoes.file, shoes.box, shoes.classes) == (unmasked, PARTS[SHOES], (5, 7, 9))


def test_places_fit_photos_of_another_size(network: keras.Model, tmp_path: Path) -> None:
    """A photo of twice the size has boxes of twice the size."""
    folder = write_worn_folder(tmp_path / "folder")
    photo, _ = draw_person()
    large = photo.resize((2 * photo.width, 2 * photo.height), Image.Resampling.NEAREST)
    large.save(folder / choose_names(3, validation=False)[-1])
    dress, _ = find_items(network, folder, SIZE)
    assert dress.box == tuple(2 * edge for edge in PARTS[DRESS])


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_unreadable_photo_is_named(
    network: keras.Model, tmp_path: Path, content: bytes | None
) -> None:
    """A missing or damaged photo is named before training starts."""
    folder = write_worn_folder(tmp_path / "folder")
    photo = folder / choose_names(3, validation=False)[-1]
    photo.unlink()
    if content is not None:
        photo.write_bytes(content)
    with pytest.raises(DataError, match=rf"{photo.name} cannot be read"):
        find_items(network, folder, SIZE)


def test_found_items_are_kept_in_a_table(network: keras.Model, tmp_path: Path) -> None:
    """The table gives the same items again, also where the photos have moved."""
    folder = write_worn_folder(tmp_path / "folder")
    found = find_items(network, folder, SIZE)
    write_found(tmp_path / FOUND_FILE, folder, found)
    assert read_found(tmp_path / FOUND_FILE, folder) == found
    moved = folder.rename(tmp_path / "moved")
    files = [item.file for item in read_found(tmp_path / FOUND_FILE, moved)]
    assert files == [moved / item.file.name for item in found]
