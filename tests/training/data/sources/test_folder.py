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
    """A file that is not an image gives an error with its path."""
    (folder / "tops" / "notes.txt").write_text("two tops")
    with pytest.raises(DataError, match=r"notes\.txt is not a readable image"):
        open_source(folder).training()


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
