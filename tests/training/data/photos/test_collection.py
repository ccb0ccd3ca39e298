"""What a photo network learns from: reproducible draws with the right classes."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.photos.folders import (
    DRESS,
    PARTS,
    choose_names,
    share_of_garment,
    write_photo,
    write_worn_folder,
)
from tests.training.fashion_mnist import sample
from training.data.photos.collection import Collection, Labelled, PhotoFolders, open_collection
from training.data.photos.found import FoundItem
from training.errors import DataError

COLOURS = {(0,): "red", (1,): "#00ff00", (): "blue", (5, 7, 9): "white"}
DRAWS = 60


@pytest.fixture
def folders(tmp_path: Path) -> PhotoFolders:
    """Photos for training whose colour says their class, one for validation, and worn garments."""
    photos = tmp_path / "photos"
    photos.mkdir()
    names = choose_names(len(COLOURS), validation=False)
    rows = []
    for name, (classes, colour) in zip(names, COLOURS.items(), strict=True):
        write_photo(photos, name, colour)
        rows.append(f"{name},{'|'.join(map(str, classes))}\n")
    (kept_back,) = choose_names(1, validation=True)
    write_photo(photos, kept_back, "black")
    (photos / "labels.csv").write_text(f"file,class_id\n{''.join(rows)}{kept_back},3\n")
    return PhotoFolders(photos, write_worn_folder(tmp_path / "worn"))


def draw(collection: Collection, name: str, seed: int = 1) -> list[Labelled]:
    """Draw from one of the three kinds of pictures."""
    generator = np.random.default_rng(seed)
    return [getattr(collection, name).draw(generator) for _ in range(DRAWS)]


@pytest.mark.parametrize("name", ["photos", "worn", "uploads"])
def test_equal_generators_draw_equally(folders: PhotoFolders, name: str) -> None:
    """Equal seeds draw equal pictures with equal classes, and other seeds draw others."""
    collection = open_collection(folders, sample())
    first, again, other = (
        [(each.classes, each.picture.tobytes()) for each in draw(collection, name, seed)]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_photos_keep_their_classes(folders: PhotoFolders) -> None:
    """Each photo of training is drawn, with its own classes, and none of validation."""
    drawn = draw(open_collection(folders, sample()), "photos")
    pixels = {each.classes: np.asarray(each.picture.resize((1, 1)), int) for each in drawn}
    assert set(pixels) == set(COLOURS)
    for classes, name in COLOURS.items():
        wanted = np.asarray(Image.new("RGB", (1, 1), name), int)
        assert np.abs(pixels[classes] - wanted).max() < 6


def test_validation_is_the_rest(folders: PhotoFolders) -> None:
    """With validation, only the photo that training does not see is there."""
    kept_back = open_collection(folders, sample(), validation=True)
    assert [each.classes for each in kept_back.photos] == [(3,)]
    assert [each.classes for each in kept_back.worn] == [(3,), (5, 7, 9), ()]
    in_training = [each.classes for each in open_collection(folders, sample()).photos]
    assert in_training == list(COLOURS)


def test_worn_pictures_show_what_their_classes_say(folders: PhotoFolders) -> None:
    """Dresses, shoes and found garments show a garment. Pictures of no class show none."""
    unmasked = folders.worn / choose_names(3, validation=False)[-1]
    found = [FoundItem(unmasked, PARTS[DRESS], (0, 3))]
    collection = open_collection(folders, sample())
    collection.worn.add_found(found)
    drawn = draw(collection, "worn")
    counts = Counter(each.classes for each in drawn)
    assert set(counts) == {(3,), (5, 7, 9), (0, 3), ()}
    assert min(counts.values()) >= 5
    assert all(share_of_garment(each.picture) > 0.1 for each in drawn if each.classes)
    shares = sorted(share_of_garment(each.picture) for each in drawn if not each.classes)
    assert shares[-2] < 0.1  # one plain background is red by chance


def test_rare_classes_are_drawn_more_often(folders: PhotoFolders) -> None:
    """A class with four times the photos is drawn twice as often."""
    names = choose_names(15, validation=False)
    for name in names:
        write_photo(folders.photos, name)
    rows = [f"{name},{0 if number < 12 else 1}\n" for number, name in enumerate(names)]
    kept = choose_names(1, validation=True)[0]
    (folders.photos / "labels.csv").write_text(f"file,class_id\n{''.join(rows)}{kept},0\n")
    collection = open_collection(folders, sample())
    generator = np.random.default_rng(1)
    counts = Counter(collection.photos.draw(generator).classes for _ in range(600))
    assert 1.6 < counts[0,] / counts[1,] < 2.5


def test_uploads_keep_their_label(folders: PhotoFolders) -> None:
    """All classes are drawn, shoes and bags more often, some images as they are."""
    collection = open_collection(folders, sample())
    drawn = list(collection.uploads.draw_many(200))
    counts = Counter(each.classes[0] for each in drawn)
    assert set(counts) == set(range(10))
    shoes_and_bags = sum(counts[label] for label in (5, 7, 8, 9))
    assert 0.45 < shoes_and_bags / 200 < 0.7  # 8 of 14
    plain = [each for each in drawn if each.picture.size == (28, 28)]
    assert 5 < len(plain) < 50
    for each in islice(plain, 5):
        images = sample().images[sample().labels == each.classes[0]].astype(int)
        grey = np.asarray(each.picture.convert("L")).astype(int)
        nearest = min(abs(images - grey).max(axis=(1, 2)).min() for grey in (grey, 255 - grey))
        assert nearest <= 1


def test_turned_photo_is_upright(folders: PhotoFolders) -> None:
    """A photo with an orientation in its EXIF data is drawn as a viewer shows it."""
    name = choose_names(1, validation=False)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (60, 40)).save(folders.photos / name, exif=exif)
    first = next(iter(open_collection(folders, sample()).photos))
    assert first.picture.size == (40, 60)


def test_damaged_photo_is_named(folders: PhotoFolders) -> None:
    """A photo that cannot be read gives an error with its path."""
    name = choose_names(1, validation=False)[0]
    (folders.photos / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        next(iter(open_collection(folders, sample()).photos))
    (folders.photos / name).unlink()
    with pytest.raises(DataError, match=rf"1 files of the photos' tables are missing.*{name}"):
        open_collection(folders, sample())


def test_unknown_class_is_named(folders: PhotoFolders) -> None:
    """A class that the data set does not have gives an error with those that it has."""
    name = choose_names(1, validation=False)[0]
    (folders.photos / "labels.csv").write_text(f"file,class_id\n{name},7|12\n")
    with pytest.raises(DataError, match=rf"class_id 12 of {name} is unknown; .* 0, 1, .* 8, 9$"):
        open_collection(folders, sample())


def test_folder_without_photos_of_a_part_is_named(tmp_path: Path, folders: PhotoFolders) -> None:
    """A folder with too few photos to have some for validation gives an error."""
    few = PhotoFolders(folders.photos, write_worn_folder(tmp_path / "few", validation=0))
    assert open_collection(few, sample())
    with pytest.raises(DataError, match="few has no photo for validation"):
        open_collection(few, sample(), validation=True)


def test_hash_depends_on_names_and_contents(folders: PhotoFolders) -> None:
    """A changed label, photo or mask, and a renamed file, change the hash."""
    hashes = [folders.hash(), folders.hash()]
    assert hashes[0] == hashes[1]
    photo = folders.photos / choose_names(1, validation=False)[0]
    write_photo(folders.photos, photo.name, "pink")
    hashes.append(folders.hash())
    (folders.photos / "labels.csv").write_text("file,class_id\n")
    hashes.append(folders.hash())
    next((folders.worn / "masks").iterdir()).write_bytes(b"other")
    hashes.append(folders.hash())
    photo.rename(photo.with_name("renamed.jpg"))
    hashes.append(folders.hash())
    assert len(set(hashes)) == 5


def test_hidden_files_do_not_change_the_hash(folders: PhotoFolders) -> None:
    """What a file manager leaves in a folder is none of its photos."""
    before = folders.hash()
    (folders.photos / ".DS_Store").write_bytes(b"x")
    (folders.worn / ".cache").mkdir()
    (folders.worn / ".cache" / "x.jpg").write_bytes(b"x")
    assert folders.hash() == before
    (folders.photos / "labels.csv").write_text("file,class_id\n")
    assert folders.hash() != before
