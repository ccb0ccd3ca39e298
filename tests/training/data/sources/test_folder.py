"""The folder source: the user's own images, one sub-folder for each class."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.fashion_mnist import ROOT, SAMPLE, sample
from training.data.sources import open_source
from training.errors import DataError

CLASSES = ("boots", "coats", "tops")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes with ten PNG files of the sample each."""
    pictures = sorted(SAMPLE.glob("*.png"))
    for number, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        for picture in pictures[number * 10 : number * 10 + 10]:
            shutil.copy(picture, tmp_path / name)
    return tmp_path


def test_images_are_read_with_their_folders_as_classes(folder: Path) -> None:
    """Sub-folders are the classes, pixels stay exact, and a sixth of the images is the test set."""
    source = open_source(folder)
    training, test = source.training(), source.test()
    assert source.class_names == CLASSES
    assert (len(training), len(test)) == (25, 5)
    pixels = np.concatenate([training.images, test.images]).reshape(30, -1)
    assert sorted(pixels.tolist()) == sorted(sample().images[:30].reshape(30, -1).tolist())


def test_train_and_test_folders_are_used_as_they_are(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Folders train and test are not split, and images get the requested size."""
    root = tmp_path_factory.mktemp("split")
    shutil.copytree(folder, root / "train")
    shutil.copytree(folder, root / "test")
    source = open_source(root, (20, 24))
    assert source.training().images.shape == source.test().images.shape == (30, 20, 24)


def test_class_may_be_called_test(folder: Path) -> None:
    """Without a folder of training images, a folder ``test`` or ``val`` is a class."""
    (folder / "boots").rename(folder / "test")
    (folder / "coats").rename(folder / "val")
    source = open_source(folder)
    assert source.class_names == ("test", "tops", "val")
    assert (len(source.training()), len(source.test())) == (25, 5)


def test_photos_are_fitted_as_in_the_service(folder: Path) -> None:
    """A photo of another size becomes an image of the model's size."""
    shutil.copy(ROOT / "tests" / "data" / "faults" / "photo.png", folder / "tops")
    assert open_source(folder).training().images.shape[1:] == (28, 28)


def test_hidden_files_and_folders_are_ignored(folder: Path) -> None:
    """Hidden files of file managers and notebooks are neither classes nor images."""
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "tops" / ".DS_Store").write_text("no image")
    source = open_source(folder)
    assert source.class_names == CLASSES
    assert len(source.training()) == 25


def test_unreadable_image_is_named(folder: Path) -> None:
    """A file that is named like an image but is none gives an error with its path."""
    (folder / "tops" / "broken.jpg").write_text("two tops")
    with pytest.raises(DataError, match=r"broken\.jpg is not a readable image"):
        open_source(folder).training()


def test_files_that_are_no_images_are_listed_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that are not named like images are passed over, and one warning names them."""
    (folder / "tops" / "deeper").mkdir()
    for name in ("tops/notes.txt", "tops/deeper/LICENSE", "boots/labels.csv"):
        (folder / name).write_text("no image")
    source = open_source(folder)
    assert len(source.training()) == len(source.training()) == 25
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{folder}: passed over 3 files that are not named like images: "
        "boots/labels.csv, tops/deeper/LICENSE, tops/notes.txt"
    )


def test_folders_that_cannot_be_classes_are_named(folder: Path) -> None:
    """An empty class and a single class give errors that name the folder."""
    (folder / "hats").mkdir()
    with pytest.raises(DataError, match=r"hats holds no images of class 'hats'"):
        open_source(folder).training()
    (folder / "hats").rmdir()
    for name in CLASSES[1:]:
        shutil.rmtree(folder / name)
    with pytest.raises(DataError, match=r"holds 1 sub-folders: create one for each class"):
        open_source(folder).training()


def test_test_folder_with_unknown_class_is_rejected(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An error names a class that only the test folder has."""
    root = tmp_path_factory.mktemp("split")
    shutil.copytree(folder, root / "train")
    shutil.copytree(folder, root / "test")
    (root / "test" / "hats").mkdir()
    with pytest.raises(DataError, match=r"holds hats: the training folder has no such classes"):
        open_source(root).test()


def test_all_unreadable_files_are_named_at_once(folder: Path) -> None:
    """Files that cannot be read are named in one error, some by name and the rest by number."""
    for number in range(12):
        (folder / CLASSES[number % 3] / f"broken{number}.png").write_text("no image")
    with pytest.raises(DataError) as caught:
        open_source(folder).training()
    assert str(caught.value).count("is not a readable image") == 10
    assert str(caught.value).endswith("and 2 more")


def test_files_of_an_operating_system_are_passed_over(folder: Path) -> None:
    """Thumbs.db, desktop.ini and __MACOSX are neither images nor classes, in any case."""
    (folder / "__MACOSX" / "tops").mkdir(parents=True)
    (folder / "__MACOSX" / "tops" / "._a.png").write_text("no image")
    (folder / "tops" / "@eaDir").mkdir()
    for name in ("Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "ehthumbs.db"):
        (folder / "tops" / name).write_text("no image")
        (folder / name).write_text("no image")
    source = open_source(folder)
    assert source.class_names == CLASSES
    assert len(source.training()) == 25


def test_images_in_sub_folders_are_read(folder: Path) -> None:
    """Images in sub-folders of a class folder belong to the class, linked folders included."""
    expected = open_source(folder).training().sha256()
    for name in CLASSES:
        (folder / name / "deeper" / "still").mkdir(parents=True)
        for picture in sorted((folder / name).glob("*.png")):
            picture.rename(folder / name / "deeper" / "still" / picture.name)
    assert open_source(folder).training().sha256() == expected
    (folder / "tops" / "deeper").rename(folder.parent / f"{folder.name}-elsewhere")
    (folder / "tops" / "deeper").symlink_to(folder.parent / f"{folder.name}-elsewhere")
    assert open_source(folder).training().sha256() == expected


def test_image_beside_the_class_folders_is_named(folder: Path) -> None:
    """An image that is in no class folder is an error; other files there are passed over."""
    (folder / "README.md").write_text("my data")
    assert len(open_source(folder).training()) == 25
    picture = next((folder / "tops").glob("*.png"))
    shutil.copy(picture, folder / "stray.png")
    with pytest.raises(DataError, match=r"1 images beside its sub-folders, such as stray\.png"):
        open_source(folder).training()


@pytest.mark.parametrize(
    ("training", "test"),
    [("Train", "Test"), ("training", "testing"), ("train", "val"), ("TRAIN", "Validation")],
)
def test_other_names_of_train_and_test_are_understood(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, training: str, test: str
) -> None:
    """Usual names of the two folders, in any case, are not taken for classes."""
    root = tmp_path_factory.mktemp("split")
    shutil.copytree(folder, root / training)
    shutil.copytree(folder / "tops", root / test / "tops")
    source = open_source(root)
    assert source.class_names == CLASSES
    assert len(source.training()) == 30
    assert len(source.test()) == 10


def test_third_folder_is_not_passed_over(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A folder val beside train and test is an error that says what to do with its images."""
    root = tmp_path_factory.mktemp("split")
    for name in ("train", "val", "test"):
        shutil.copytree(folder, root / name)
    with pytest.raises(DataError, match="move the images of val"):
        open_source(root).training()


def test_test_folder_may_lack_a_class(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A class without test images is no error; a class without training images is one."""
    root = tmp_path_factory.mktemp("split")
    shutil.copytree(folder, root / "train")
    shutil.copytree(folder, root / "test")
    shutil.rmtree(root / "test" / "boots")
    shutil.rmtree(root / "test" / "coats")
    (root / "test" / "coats").mkdir()
    test = open_source(root).test()
    assert set(test.labels) == {CLASSES.index("tops")}
    shutil.rmtree(root / "test" / "tops")
    with pytest.raises(DataError, match="holds no images"):
        open_source(root).test()
    shutil.rmtree(root / "train" / "coats")
    (root / "train" / "coats").mkdir()
    with pytest.raises(DataError, match="holds no images of class 'coats'"):
        open_source(root).training()
