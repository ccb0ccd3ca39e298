"""The measurement from folders to page, with a small real bundle of colours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.bundle import Bundle
from tests.service.bundles import write_photo_bundle
from tests.training.data.photos.folders import HEAD, choose_names, write_photo, write_worn_folder
from tests.training.fashion_mnist import SampleSource, sample
from training.assess.photo_kinds import HOME, HOME_THINGS, STREET, WHITE_GARMENTS, WHITE_SHOES
from training.assess.photo_report import Material, write_photos
from training.data.samples import Samples
from training.errors import DataError

RECIPE = {"validation_fraction": 0.5, "split_seed": 1}
COLOURS = ("red", "red", "#00ff00", "blue", "black", "white")
CLASSES = ("0", "0", "0", "0", "", "")


class ColourSource(SampleSource):
    """The images of the first three classes, named as the bundle's classes."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the bundle."""
        return "red", "green", "blue"

    def training(self) -> Samples:
        """All 90 images."""
        is_known = sample().labels < 3
        return Samples(sample().images[is_known], sample().labels[is_known])


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle that answers the colour of a picture, and class 0 to a grey one."""
    return write_photo_bundle(tmp_path / "bundle", training={"recipe": RECIPE})


@pytest.fixture
def material(tmp_path: Path, bundle: Bundle) -> Material:
    """Six validation photos, a worn dress with shoes, and the data set."""
    photos = tmp_path / "photos"
    photos.mkdir()
    names = choose_names(len(COLOURS), validation=True)
    for name, colour in zip(names, COLOURS, strict=True):
        write_photo(photos, name, colour)
    lines = [f"{name},{class_id},C,\n" for name, class_id in zip(names, CLASSES, strict=True)]
    (photos / "labels.csv").write_text(HEAD + "".join(lines))
    worn = write_worn_folder(tmp_path / "worn")
    return Material(photos, worn, ColourSource(), bundle)


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of a file of figures by their kind."""
    return {row["kind"]: row for row in json.loads(path.read_text())["rows"]}


def test_bundle_is_measured_on_every_kind(
    tmp_path: Path, bundle: Bundle, material: Material
) -> None:
    """Figures, page and both sheets are written; the figures are those of the drawn pictures."""
    # A sheet names the classes of its pictures, and this bundle has no class 5.
    material = replace(material, worn=None)
    output = tmp_path / "pages" / "photos.md"
    page = write_photos(bundle, material, tmp_path / "sheets" / "sheet.png", output)
    rows = read_rows(tmp_path / "pages" / "photos" / "colours-1.json")
    assert rows[HOME.name]["seen"] == {"correct_class": 2, "correct_group": 3, "accepted": 4}
    assert rows[HOME_THINGS.name]["seen"]["accepted"] == 1
    # The reference answers 0 to each grey image, so only the 15 validation images of class 0 stay.
    assert rows[WHITE_GARMENTS.name]["count"] == 15
    assert WHITE_SHOES.name not in rows
    assert STREET.name not in rows
    assert output.read_text() == page
    assert "50.0 / 75.0 / 100.0" in page
    for sheet in (tmp_path / "sheets" / "sheet.png", output.with_suffix("") / "colours-1.png"):
        assert np.asarray(Image.open(sheet)).std() > 10


def test_data_set_may_be_missing(tmp_path: Path, material: Material) -> None:
    """Without the data set, photos are measured, and the page says which rows are left out."""
    foreign = write_photo_bundle(tmp_path / "foreign")
    material = replace(material, worn=None, source=None)
    page = write_photos(foreign, material, tmp_path / "sheet.png", tmp_path / "photos.md")
    assert set(read_rows(tmp_path / "photos" / "colours-1.json")) == {HOME.name, HOME_THINGS.name}
    assert "`colours/1`: measured without Fashion-MNIST" in page
    assert "colours-1.png" not in page
    assert (tmp_path / "sheet.png").exists()


def test_photos_stay_out_of_the_folder_of_the_page(
    tmp_path: Path, bundle: Bundle, material: Material
) -> None:
    """A sheet of photos beside the page's sheets is rejected before anything is measured."""
    page = tmp_path / "photos.md"
    with pytest.raises(DataError, match="choose another folder for the sheet of photos"):
        write_photos(bundle, material, tmp_path / "photos" / "colours-1.png", page)
    assert not page.exists()


def test_made_pictures_are_validation_images(tmp_path: Path, material: Material) -> None:
    """The split of the bundle's recipe chooses the images: another fraction, another count."""
    other = write_photo_bundle(
        tmp_path / "other", training={"recipe": {**RECIPE, "validation_fraction": 0.2}}
    )
    material = replace(material, worn=None)
    write_photos(other, material, tmp_path / "sheet.png", tmp_path / "photos.md")
    assert read_rows(tmp_path / "photos" / "colours-1.json")[WHITE_GARMENTS.name]["count"] == 6


def test_other_classes_are_rejected(tmp_path: Path, bundle: Bundle, material: Material) -> None:
    """A bundle whose classes are not those of the data set is not measured."""
    fitting = replace(material, source=SampleSource())
    with pytest.raises(DataError, match="has the classes red, green, blue, but the data set has"):
        write_photos(bundle, fitting, tmp_path / "sheet.png", tmp_path / "photos.md")


def test_unknown_split_is_named(tmp_path: Path, material: Material) -> None:
    """A bundle that does not say which images it saw is not measured."""
    foreign = write_photo_bundle(tmp_path / "foreign")
    with pytest.raises(DataError, match=r"no training\.recipe\.validation_fraction"):
        write_photos(foreign, material, tmp_path / "sheet.png", tmp_path / "photos.md")
