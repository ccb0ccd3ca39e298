"""The views of training: crops, pasted items, parts without any garment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.photos.folders import (
    BELT,
    DRESS,
    HAIR,
    WORN_SIZE,
    draw_person,
    share_of_garment,
    write_worn_folder,
)
from training.data.photos.found import FoundItem
from training.data.photos.varied import crop_bare, crop_item, paste_item, vary
from training.data.photos.worn import WornPhoto, read_worn

SEEDS = range(20)


@pytest.fixture
def photo(tmp_path: Path) -> WornPhoto:
    """A drawn person in a dress."""
    (photo,) = read_worn(write_worn_folder(tmp_path, training=1), validation=False)
    return photo


def test_equal_generators_vary_equally() -> None:
    """Equal seeds give equal pictures. Twenty seeds give twenty pictures, all in RGB."""
    person, _ = draw_person()
    first, again = (
        [vary(person, np.random.default_rng(seed)).tobytes() for seed in SEEDS] for _ in range(2)
    )
    assert first == again
    assert len(set(first)) == len(SEEDS)
    assert vary(person, np.random.default_rng(1)).mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 4)])
def test_tiny_pictures_are_varied(size: tuple[int, int]) -> None:
    """A picture of a few pixels stays a picture."""
    for seed in SEEDS:
        varied = vary(Image.new("RGB", size, "red"), np.random.default_rng(seed))
        assert min(varied.size) >= 1


def test_crop_shows_the_item(photo: WornPhoto) -> None:
    """A crop around the dress shows most of the dress, with more or less around it."""
    dress = next(item for item in photo.items if item.tag == DRESS)
    crops = [crop_item(dress, np.random.default_rng(seed)) for seed in SEEDS]
    shares = [share_of_garment(crop) for crop in crops]
    assert min(shares) > 0.2
    assert max(shares) - min(shares) > 0.2
    assert all(crop.height >= 0.9 * 150 for crop in crops)


def test_narrow_item_is_cropped(photo: WornPhoto) -> None:
    """A crop of an item of one pixel's width, which margins would cut off, is not empty."""
    item = FoundItem(photo.file, (50, 20, 51, 120), (1,))
    crops = [crop_item(item, np.random.default_rng(seed)) for seed in SEEDS]
    assert all(crop.width >= 1 and crop.height >= 90 for crop in crops)


def test_crop_of_hair_shows_little_else(photo: WornPhoto) -> None:
    """A crop of a thing of no class has at most a tenth more on each side."""
    hair = next(item for item in photo.items if item.tag == HAIR)
    left, top, right, bottom = hair.box
    longest = max(right - left, bottom - top)
    crops = [crop_item(hair, np.random.default_rng(seed)) for seed in SEEDS]
    assert all(max(crop.size) <= 1.1 * longest for crop in crops)


def test_pasted_item_leaves_its_surroundings(photo: WornPhoto) -> None:
    """A pasted dress is on the other background alone: nothing of its photo is left."""
    dress = next(item for item in photo.items if item.tag == DRESS)
    for seed in SEEDS:
        pasted = paste_item(dress, Image.new("RGB", (3, 3), "white"), np.random.default_rng(seed))
        pixels = np.asarray(pasted).reshape(-1, 3).astype(int)
        is_white, is_red = pixels.min(axis=1) == 255, pixels[:, 0] > pixels[:, 2] + 60
        assert (is_white | is_red).mean() > 0.95


def test_item_is_pasted_on_plain_colours(photo: WornPhoto) -> None:
    """Without a background the colour is white most often, and another one sometimes."""
    belt = next(item for item in photo.items if item.tag == BELT)
    corners = [
        paste_item(belt, None, np.random.default_rng(seed)).getpixel((0, 0)) for seed in range(60)
    ]
    assert 25 < corners.count((255, 255, 255)) < 50


def test_bare_crops_hold_no_garment(photo: WornPhoto) -> None:
    """A bare crop shows almost nothing of the dress, the shoes or the belt."""
    crops = [crop_bare(photo, np.random.default_rng(seed)) for seed in SEEDS]
    found = [crop for crop in crops if crop is not None]
    assert len(found) > 10
    assert max(map(share_of_garment, found)) < 0.05


def test_photo_full_of_garment_has_no_bare_crop(photo: WornPhoto) -> None:
    """If a garment is everywhere, no crop is found."""
    Image.new("L", WORN_SIZE, DRESS).save(photo.mask_file)
    assert crop_bare(photo, np.random.default_rng(1)) is None
