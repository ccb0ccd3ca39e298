"""The table of labelled photos: reading, the choice of validation, errors that name the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.photos.table import Photo, find_group, is_validation, read_photos
from training.errors import DataError

HEAD = "file,class_id\n"


def test_rows_become_photos(tmp_path: Path) -> None:
    """A row has zero, one or several classes. The columns tier and source may be missing."""
    (tmp_path / "labels.csv").write_text("file,class_id\na.jpg,\nb.jpg,3\nc.jpg,5|7|9\n")
    assert read_photos(tmp_path) == [
        Photo("a.jpg", (), "", ""),
        Photo("b.jpg", (3,), "", ""),
        Photo("c.jpg", (5, 7, 9), "", ""),
    ]
    (tmp_path / "labels.csv").write_text("file,class_id,tier,source\na.jpg,1,B,me\n")
    assert read_photos(tmp_path) == [Photo("a.jpg", (1,), "B", "me")]


def test_missing_table_is_named(tmp_path: Path) -> None:
    """A folder without a table gives an error with the path."""
    with pytest.raises(DataError, match=r"labels\.csv cannot be read"):
        read_photos(tmp_path)


@pytest.mark.parametrize(
    "table",
    [
        b"file,tier,source\na.jpg,C,me\n",
        HEAD.encode() + b"a.jpg,shirt\n",
        HEAD.encode() + b"a.jpg,-1\n",
        HEAD.encode() + b"a.jpg\n",
        HEAD.encode() + b"a.jpg,1||x\n",
        HEAD.encode() + b"\xff\xfe.jpg,1\n",
        HEAD.encode() + b"a.jpg," + b"1" * 200_000 + b"\n",
    ],
    ids=["no column", "name", "negative", "short row", "odd list", "not UTF-8", "huge field"],
)
def test_damaged_table_is_rejected(tmp_path: Path, table: bytes) -> None:
    """A table that is not one of photos gives an error that says what a table needs."""
    (tmp_path / "labels.csv").write_bytes(table)
    with pytest.raises(DataError, match=r"labels\.csv is not a table of photos .* class_id"):
        read_photos(tmp_path)


def test_a_tenth_is_validation() -> None:
    """The name alone decides, and about a tenth of the names are validation."""
    names = [f"folder/{number}.jpg" for number in range(5_000)]
    assert 0.08 < sum(map(is_validation, names)) / len(names) < 0.12
    assert is_validation(names[7]) == is_validation(names[7])


def test_every_class_has_one_group() -> None:
    """The groups hold each class of the data set, and no other class."""
    groups = [find_group(class_id) for class_id in range(10)]
    assert groups == [
        "top",
        "trouser",
        "top",
        "dress",
        "top",
        *["shoe", "top", "shoe", "bag"],
        "shoe",
    ]
    assert find_group(10) is None
