"""The image files that the command line's arguments name."""

from pathlib import Path

import pytest

from service.client import UsageError
from service.client.files import find_images


def test_files_folders_and_globs(images: Path) -> None:
    """A folder gives its images, a glob its matches, a file itself; no file comes twice."""
    inside = [images / "a.png", images / "b.JPG", images / "deeper/c.webp"]
    assert find_images([str(images)]) == inside
    assert find_images([f"{images}/*.png", str(images / "a.png"), str(images)]) == inside
    assert find_images([f"{images}/**/*.webp"]) == [images / "deeper/c.webp"]
    assert find_images([str(images / "notes.txt")]) == [images / "notes.txt"]


def test_relative_glob(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glob without a folder searches the working directory, and ``**`` its subfolders."""
    monkeypatch.chdir(images)
    assert find_images(["**/*.webp", "*.png"]) == [Path("deeper/c.webp"), Path("a.png")]


def test_name_that_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    """The name of an existing file is not read as a glob."""
    (tmp_path / "shoe[1].png").touch()
    assert find_images([str(tmp_path / "shoe[1].png")]) == [tmp_path / "shoe[1].png"]


@pytest.mark.parametrize("name", ["missing.png", "empty", "*.png"])
def test_argument_without_an_image_is_an_error(tmp_path: Path, name: str) -> None:
    """A missing file, an empty folder or a glob without a match is named in the error."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        find_images([str(tmp_path / name)])
    assert str(tmp_path / name) in str(caught.value)
