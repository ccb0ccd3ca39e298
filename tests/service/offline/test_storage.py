"""Files by path, pattern and URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SourceError
from service.offline.storage import Storage, normalise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with images in two levels, one of them hidden."""
    for name in ("b.png", "a.png", "a.jpg", ".hidden.png", "sub/c.png", "sub/deep/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("", ["a.jpg", "a.png", "b.png", "sub/c.png", "sub/deep/d.png"]),
        ("a.png", ["a.png"]),
        ("*.png", ["a.png", "b.png"]),
        ("*/*.png", ["sub/c.png"]),
        ("sub/**.png", ["sub/c.png", "sub/deep/d.png"]),
        ("**/*.png", ["a.png", "b.png", "sub/c.png", "sub/deep/d.png"]),
        ("sub/**/*.png", ["sub/c.png", "sub/deep/d.png"]),
        ("**/deep/**", ["sub/deep/d.png"]),
        ("**/c.png", ["sub/c.png"]),
        ("[bc].*", ["b.png"]),
        ("missing", []),
        ("missing/*.png", []),
    ],
)
def test_files_are_found(folder: Path, source: str, names: list[str]) -> None:
    """A folder, a file or a pattern gives its files in a fixed order, without hidden ones."""
    found = Storage().find(f"{folder}/{source}")
    assert [Path(path).relative_to(folder).as_posix() for path in found] == names


def test_name_is_the_same_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path, a slash at the end and an absolute path name the same folder."""
    monkeypatch.chdir(tmp_path)
    expected = str(tmp_path / "photos")
    names = "photos", "photos/", "./photos", expected, f"{expected}/"
    assert {normalise(name) for name in names} == {expected}
    assert {normalise(name) for name in ("s3://bucket/a", "s3://bucket/a/")} == {"s3://bucket/a"}


def test_name_with_wildcards_is_a_folder_if_it_exists(folder: Path) -> None:
    """A folder whose name looks like a pattern is found."""
    (folder / "photos [1]").mkdir()
    (folder / "photos [1]/e.png").write_bytes(b"")
    assert len(list(Storage().find(f"{folder}/photos [1]"))) == 1


def test_file_is_read_up_to_a_limit(folder: Path) -> None:
    """No more than the wanted bytes of a file are read."""
    assert Storage().read(f"{folder}/a.png", 3) == b"a.p"


def test_unknown_scheme_is_rejected() -> None:
    """The error names the schemes that are known."""
    with pytest.raises(SourceError, match="s3:// or gs://"):
        Storage().locate("ftp://host/file.png")
