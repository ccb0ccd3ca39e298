"""Folders that are named after classes."""

import unicodedata

import pytest

from service.client.labels import match_class
from training.data.sources.idx import CLASS_NAMES


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("T-shirt_top", "T-shirt/top"),
        ("T-shirt-top", "T-shirt/top"),
        ("T-shirt:top", "T-shirt/top"),
        ("t-shirts tops", "T-shirt/top"),
        ("tshirt_top", "T-shirt/top"),
        ("T-shirt top", "T-shirt/top"),
        ("T-shirt\u2215top", "T-shirt/top"),  # the slash that file managers write for "/"
        ("T\u2011shirt", "T-shirt/top"),  # a hyphen that does not break
        ("TSHIRTS", "T-shirt/top"),
        ("t_shirt", "T-shirt/top"),
        ("T-Shirt", "T-shirt/top"),
        ("tops", "T-shirt/top"),
        ("0", "T-shirt/top"),
        ("Trousers", "Trouser"),
        ("DRESSES", "Dress"),
        ("dress", "Dress"),
        ("shirts", "Shirt"),
        ("ankle_boots", "Ankle boot"),
        ("AnkleBoot", "Ankle boot"),
        ("Ankle boot", "Ankle boot"),
        ("9", "Ankle boot"),
        ("09", "Ankle boot"),
        ("ankle.boots", "Ankle boot"),
        (" Bag ", "Bag"),
        ("class_9", "Ankle boot"),
        ("Label 0", "T-shirt/top"),
        ("class0", "T-shirt/top"),
        ("0_T-shirt_top", "T-shirt/top"),
        ("0 - T-shirt", "T-shirt/top"),
        ("09. ankle boots", "Ankle boot"),
    ],
)
def test_spellings_of_a_class(folder: str, name: str) -> None:
    """Slash, case, plural, spaces and marks are forgiven; an id counts."""
    assert match_class(folder, CLASS_NAMES) == name


@pytest.mark.parametrize(
    "folder",
    [
        *("", ".", "__", "10", "boot", "shoes", "shirt coat", "-1", "s", "class", "class_10"),
        *("1 Bag", "4_9", "0 shoes", "class--1", "10 Coat", "T", "shirt_top"),
    ],
)
def test_other_folders_are_no_class(folder: str) -> None:
    """Another word, an id that no class has, or a part of a name is no class."""
    assert match_class(folder, CLASS_NAMES) is None


def test_exact_name_comes_first() -> None:
    """A name wins over an id and over another class's spelling; what fits two classes is none."""
    assert match_class("1", ("a", "b", "1")) == "1"
    assert match_class("Bags", ("Bag", "Bags")) == "Bags"
    assert match_class("bags", ("Bag", "BAG")) is None
    assert match_class("top", ("T-shirt/top", "Vest/top")) is None
    assert match_class("class 1", ("a", "b", "Class 1")) == "Class 1"
    assert match_class("501-jeans", ("501 Jeans", "Other")) == "501 Jeans"


@pytest.mark.parametrize(
    ("folder", "name"), [("batteries", "Battery"), ("Boxes", "box"), ("Glass", "Glasses")]
)
def test_plurals_of_other_classes(folder: str, name: str) -> None:
    """Regular English plurals are forgiven in both directions."""
    assert match_class(folder, (name, "Other")) == name


def test_names_in_other_scripts() -> None:
    """Names with letters beyond ASCII work."""
    assert match_class("Schuhe_für draußen", ("Schuhe/für Draußen", "Hemd")) == "Schuhe/für Draußen"
    assert match_class("靴", ("靴", "鞄")) == "靴"
    decomposed = unicodedata.normalize("NFD", "Schuhe für Draußen")  # as macOS writes names
    assert match_class(decomposed, ("Schuhe/für Draußen", "Hemd")) == "Schuhe/für Draußen"
