"""Photos of people with masks: items, boxes, outlines, and errors of damaged folders."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.photos.folders import (
    BACKGROUND,
    BELT,
    DRESS,
    HAIR,
    PARTS,
    SHOES,
    SKIN,
    WORN_SIZE,
    choose_names,
    write_worn_folder,
)
from tests.training.fashion_mnist import ROOT
from training.data.photos.worn import read_unmasked, read_worn
from training.errors import DataError

SHARED_WORN = ROOT.parent / "shared" / "photos-worn"


def test_masks_give_items(tmp_path: Path) -> None:
    """Each garment and thing of a mask is an item, with its classes and the box of its pixels."""
    photo, other = read_worn(write_worn_folder(tmp_path), validation=False)
    found = {item.tag: item for item in photo.items}
    assert {tag: item.classes for tag, item in found.items()} == {
        DRESS: (3,),
        SHOES: (5, 7, 9),
        BELT: (),
        HAIR: (),
    }
    assert {tag: item.box for tag, item in found.items()} == {tag: PARTS[tag] for tag in found}
    assert [tag for tag, item in found.items() if item.small] == [BELT]
    assert [item.box for item in other.items] == [item.box for item in photo.items]


def test_parts_are_chosen_by_the_name(tmp_path: Path) -> None:
    """Training and validation share no photo, and a photo without a mask is in neither."""
    folder = write_worn_folder(tmp_path, training=3, validation=2)
    names = [
        [photo.file.name for photo in read_worn(folder, validation=validation)]
        for validation in (False, True)
    ]
    assert names == [choose_names(3, validation=False), choose_names(2, validation=True)]


def test_photos_without_masks_have_possible_classes(tmp_path: Path) -> None:
    """Such a photo has the classes of all its tags. Things alone and validation are left out."""
    names = choose_names(4, validation=False)
    tags = ("jeans|top|bag|hat", "skirt|blouse", "shorts|t-shirt", "hat|hair")
    rows = [f"{name},,{tag}\n" for name, tag in zip(names, tags, strict=True)]
    (kept_back,) = choose_names(1, validation=True)
    masked = choose_names(5, validation=False)[-1]
    table = f"file,mask,tags\n{''.join(rows)}{kept_back},,dress\n{masked},masks/a.png,dress\n"
    (tmp_path / "labels.csv").write_text(table)
    found = {photo.file.name: photo.classes for photo in read_unmasked(tmp_path)}
    assert found == {names[0]: (0, 1, 2, 6, 8), names[1]: (6,), names[2]: (0,)}


def test_item_opens_with_its_outline(tmp_path: Path) -> None:
    """The outline is 255 on the item's pixels and 0 elsewhere, in the photo's size."""
    (photo,) = read_worn(write_worn_folder(tmp_path, training=1), validation=False)
    dress = next(item for item in photo.items if item.tag == DRESS)
    picture, outline = dress.open()
    assert picture.size == outline.size == WORN_SIZE
    inside = np.asarray(outline) == 255
    assert inside.sum() == 80 * 150 - 80 * 10  # the belt is on the dress
    red, _, blue = np.moveaxis(np.asarray(picture)[inside].astype(int), 1, 0)
    assert ((red > blue).mean()) > 0.95


def test_bare_is_where_no_garment_is(tmp_path: Path) -> None:
    """Background, skin and hair are bare. Every other tag is not."""
    (photo,) = read_worn(write_worn_folder(tmp_path, training=1), validation=False)
    mask = np.asarray(Image.open(photo.mask_file))
    np.testing.assert_array_equal(photo.find_bare(), np.isin(mask, [BACKGROUND, SKIN, HAIR]))


def test_specks_are_no_items(tmp_path: Path) -> None:
    """A garment of a few pixels is left out."""
    folder = write_worn_folder(tmp_path, training=1)
    name = Path(choose_names(1, validation=False)[0]).stem
    speck = Image.new("L", WORN_SIZE, BACKGROUND)
    speck.paste(DRESS, (10, 10, 22, 22))
    speck.save(folder / "masks" / f"{name}.png")
    (photo,) = read_worn(folder, validation=False)
    assert photo.items == ()


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


STEM = Path(choose_names(1, validation=False)[0]).stem
TAGS_FILE, TABLE, MASK, PHOTO = "tags.txt", "labels.csv", f"masks/{STEM}.png", f"{STEM}.jpg"
# The file that is replaced, and its new content. None: the file is missing.
DAMAGES: dict[str, tuple[str, bytes | None]] = {
    "no tags": (TAGS_FILE, None),
    "empty tag": (TAGS_FILE, b"0 null\n\n"),
    "too few tags": (TAGS_FILE, b"0 null\n1 skin\n"),
    "no table": (TABLE, None),
    "no column": (TABLE, b"file,tags\na.jpg,dress\n"),
    "no tags column": (TABLE, b"file,mask\na.jpg,masks/a.png\n"),
    "short row": (TABLE, b"mask,tags,file\nmasks/a.png\n"),
    "not UTF-8": (TABLE, b"file,mask\n\xff\xfe,\xff\n"),
    "no mask": (MASK, None),
    "damaged mask": (MASK, b"not an image"),
    "mask in colour": (MASK, encode_png(Image.new("RGB", WORN_SIZE))),
    "mask of another size": (MASK, encode_png(Image.new("P", (10, 10)))),
    "no photo": (PHOTO, None),
}


@pytest.mark.parametrize(("file", "content"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_folder_is_rejected(tmp_path: Path, file: str, content: bytes | None) -> None:
    """A damaged folder gives an error that names it and says what it needs."""
    folder = write_worn_folder(tmp_path, training=1)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=r"not a folder of worn garments .* needs"):
        read_worn(folder, validation=False)


@pytest.mark.skipif(not SHARED_WORN.exists(), reason=f"{SHARED_WORN} does not exist")
def test_shared_photos_have_garments_of_each_group() -> None:
    """The validation photos in the shared folder hold tops, trousers, dresses, shoes and bags."""
    items = [item for photo in read_worn(SHARED_WORN, validation=True) for item in photo.items]
    classes = {class_id for item in items for class_id in item.classes}
    assert classes == set(range(10))
    assert all(left < right and top < bottom for left, top, right, bottom in (i.box for i in items))
