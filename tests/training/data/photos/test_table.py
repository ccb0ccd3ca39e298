"""The table of labelled photos: reading, hashing, and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.photos.table import Photo, hash_photos, read_photos
from training.errors import DataError


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


def test_unreadable_table_is_named(tmp_path: Path) -> None:
    """A missing table, and a table without a column, give errors with the path."""
    with pytest.raises(DataError, match=r"labels\.csv cannot be read"):
        read_photos(tmp_path)
    (tmp_path / "labels.csv").write_text("file,tier,source\na.jpg,C,me\n")
    with pytest.raises(DataError, match="not a table of photos"):
        read_photos(tmp_path)


def test_hash_depends_on_table_and_photos(tmp_path: Path) -> None:
    """A changed label and a changed photo change the hash, and a missing photo is named."""
    table, photo = tmp_path / "labels.csv", tmp_path / "a.jpg"
    table.write_text("file,class_id\na.jpg,1\n")
    photo.write_bytes(b"one")
    hashes = {hash_photos(tmp_path)}
    photo.write_bytes(b"two")
    hashes.add(hash_photos(tmp_path))
    table.write_text("file,class_id\na.jpg,2\n")
    hashes.add(hash_photos(tmp_path))
    assert len(hashes) == 3
    photo.unlink()
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        hash_photos(tmp_path)
