"""The kinds of pictures: what belongs to each, and that only validation is measured."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.photos.folders import (
    HEAD,
    PARTS,
    SHOES,
    choose_names,
    write_photo,
    write_worn_folder,
)
from tests.training.fashion_mnist import ROOT, sample
from training.assess.photo_kinds import (
    ENLARGED,
    FIGURES,
    HOME,
    HOME_SHOES,
    HOME_SOME_SHOE,
    HOME_THINGS,
    KINDS,
    MADE_KINDS,
    SHOP_THINGS,
    STREET,
    WHITE_GARMENTS,
    WHITE_SHOES,
    WORN_THINGS,
    Picture,
    crop_worn_kinds,
    encode_images,
    make_upload_kinds,
    read_photo_kinds,
)
from training.data.samples import Samples
from training.errors import DataError

SHARED = ROOT.parent / "shared"


def open_picture(picture: Picture) -> Image.Image:
    """Decode a picture."""
    return Image.open(BytesIO(picture.data))


def test_photos_are_sorted_into_kinds(tmp_path: Path) -> None:
    """Classes, tier and source decide the kind. Worn photos and a shop's products have none."""
    wanted = [
        ("3,C,", HOME, (3,)),
        ("8,C,", HOME, (8,)),
        ("7,C,", HOME_SHOES, (7,)),
        ("5|7|9,C,", HOME_SOME_SHOE, (5, 7, 9)),
        (",C,", HOME_THINGS, ()),
        (",C,retail-demo-store", SHOP_THINGS, ()),
        ("8,C,retail-demo-store", None, ()),
        ("1,B,", None, ()),
    ]
    names = choose_names(len(wanted), validation=True)
    for name in names:
        write_photo(tmp_path, name)
    lines = [f"{name},{cells}\n" for name, (cells, _, _) in zip(names, wanted, strict=True)]
    (tmp_path / "labels.csv").write_text(HEAD + "".join(lines))
    found = [
        (kind, picture.name, picture.classes)
        for kind, pictures in read_photo_kinds(tmp_path)
        for picture in pictures
    ]
    assert found == [
        (kind, str(tmp_path / name), classes)
        for name, (_, kind, classes) in zip(names, wanted, strict=True)
        if kind is not None
    ]


def test_photos_of_training_are_left_out(tmp_path: Path) -> None:
    """A photo that training sees is not measured, nor even read."""
    names = [*choose_names(5, validation=False), *choose_names(1, validation=True)]
    write_photo(tmp_path, names[-1])
    (tmp_path / "labels.csv").write_text(HEAD + "".join(f"{name},0,C,\n" for name in names))
    ((kind, pictures),) = read_photo_kinds(tmp_path)
    assert kind == HOME
    assert [picture.data for picture in pictures] == [(tmp_path / names[-1]).read_bytes()]


def test_folder_without_validation_is_named(tmp_path: Path) -> None:
    """A folder whose photos are all for training gives an error."""
    (name,) = choose_names(1, validation=False)
    (tmp_path / "labels.csv").write_text(f"{HEAD}{name},0,C,\n")
    with pytest.raises(DataError, match="has no photo for validation"):
        list(read_photo_kinds(tmp_path))


def test_missing_photo_is_named(tmp_path: Path) -> None:
    """A photo in the table that does not exist gives an error with its path."""
    (name,) = choose_names(1, validation=True)
    (tmp_path / "labels.csv").write_text(f"{HEAD}{name},0,C,\n")
    with pytest.raises(DataError, match=rf"{name} cannot be read: No such file"):
        list(read_photo_kinds(tmp_path))


def test_worn_items_are_cropped_or_pasted(tmp_path: Path) -> None:
    """Garments are cropped to their box. Small things are pasted on white and have no class."""
    folder = write_worn_folder(tmp_path, training=3, validation=1)
    kinds = dict(crop_worn_kinds(folder))
    assert [picture.classes for picture in kinds[STREET]] == [(3,), (5, 7, 9)]
    left, top, right, bottom = PARTS[SHOES]
    assert open_picture(kinds[STREET][1]).size == (right - left, bottom - top)
    (belt,) = kinds[WORN_THINGS]
    assert belt.classes == ()
    assert {level for _, level in open_picture(belt).convert("RGB").getcolors() or []} >= {
        (255, 255, 255)
    }


def test_uploads_are_made_of_each_image() -> None:
    """Shoes and bags, and garments, are put on white. Every image is enlarged and drawn."""
    few = Samples(sample().images[:60], sample().labels[:60])
    made = dict(make_upload_kinds(few))
    assert tuple(made) == MADE_KINDS
    labels = [(label,) for label in few.labels.tolist()]
    shoes_and_bags = [classes for classes in labels if classes[0] in (5, 7, 8, 9)]
    garments = [classes for classes in labels if classes not in shoes_and_bags]
    assert {kind: [picture.classes for picture in made[kind]] for kind in made} == {
        WHITE_SHOES: shoes_and_bags,
        WHITE_GARMENTS: garments,
        ENLARGED: labels,
        FIGURES: labels,
    }
    sides = [open_picture(picture).width for picture in made[ENLARGED]]
    assert 32 <= min(sides) < 60 < 500 < max(sides) <= 800
    assert dict(make_upload_kinds(few)) == made


def test_images_become_pictures_pixel_for_pixel() -> None:
    """Encoding and decoding an image of the data set does not change it."""
    pictures = encode_images(sample())
    np.testing.assert_array_equal(np.asarray(open_picture(pictures[5])), sample().images[5])


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} does not exist")
def test_shared_folders_have_each_kind() -> None:
    """The shared folders hold pictures of each kind that is not made, and each kind has a goal."""
    found = dict([*read_photo_kinds(SHARED / "photos"), *crop_worn_kinds(SHARED / "photos-worn")])
    assert set(found) == set(KINDS) - set(MADE_KINDS)
    assert all(found.values())
    assert len(found[HOME]) > 200
    assert len(found[STREET]) > 150
