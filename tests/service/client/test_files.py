"""The image files that the command line's arguments name."""

from pathlib import Path

import pytest

from service.client import UsageError
from service.client.files import IMAGE_SUFFIXES, find_images, identify


def test_files_folders_and_globs(images: Path) -> None:
    """A folder gives its images, a glob its matches, a file itself; no file comes twice."""
    inside = [images / "a.png", images / "b.JPG", images / "deeper/c.webp"]
    assert find_images([str(images)]).images == inside
    assert find_images([f"{images}/*.png", str(images / "a.png"), str(images)]).images == inside
    assert find_images([f"{images}/**/*.webp"]).images == [images / "deeper/c.webp"]
    assert find_images([str(images / "notes.txt")]).images == [images / "notes.txt"]


def test_relative_glob(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glob without a folder searches the working directory, and ``**`` its subfolders."""
    monkeypatch.chdir(images)
    assert find_images(["**/*.webp", "*.png"]).images == [Path("deeper/c.webp"), Path("a.png")]


def test_name_that_looks_like_a_glob_is_a_file(tmp_path: Path) -> None:
    """The name of an existing file is not read as a glob."""
    (tmp_path / "shoe[1].png").touch()
    assert find_images([str(tmp_path / "shoe[1].png")]).images == [tmp_path / "shoe[1].png"]


@pytest.mark.parametrize("name", ["missing.png", "empty", "*.png"])
def test_argument_without_an_image_is_an_error(tmp_path: Path, name: str) -> None:
    """A missing file, an empty folder or a glob without a match is named in the error."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        find_images([str(tmp_path / name)])
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".pjpeg", ".JPG", ".WebP"])
def test_folder_gives_every_suffix_of_the_formats(tmp_path: Path, suffix: str) -> None:
    """A folder's images are found by each suffix of the web's formats, in any case."""
    (tmp_path / f"boot{suffix}").touch()
    assert suffix.lower() in IMAGE_SUFFIXES
    assert find_images([str(tmp_path)]).images == [tmp_path / f"boot{suffix}"]


def test_files_that_are_passed_over_are_counted(images: Path) -> None:
    """Other files of a folder are counted by suffix; a file that is named is never passed over."""
    for name in ("a.HEIC", "deeper/b.heic", "LICENSE"):
        (images / name).touch()
    found = find_images([str(images), str(images / "a.HEIC")])
    assert images / "a.HEIC" in found.images
    assert found.passed_over == {".heic": 2, ".txt": 1, "hidden": 1, "no suffix": 1}
    assert found.describe_passed_over().startswith("5 other files in the folders were passed over")
    assert "2 x .heic" in found.describe_passed_over()
    assert find_images([str(images / "a.png")]).describe_passed_over() == ""


def test_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    """The error about a folder without images counts the folder's other files."""
    (tmp_path / "a.heic").touch()
    with pytest.raises(UsageError, match=r"no image file.*1 x \.heic"):
        find_images([str(tmp_path)])


def test_file_under_two_spellings_comes_once(
    images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Relative, absolute and roundabout spellings, and linked folders, name one file."""
    monkeypatch.chdir(images)
    (tmp_path / "linked").symlink_to(images)
    spellings = ["a.png", "./a.png", str(images / "a.png"), "deeper/../a.png"]
    spellings += [str(tmp_path / "linked" / "a.png")]
    assert find_images(spellings).images == [Path("a.png")]
    assert len({identify(Path(spelling)) for spelling in spellings}) == 1


def test_linked_file_is_a_file_of_its_own(images: Path) -> None:
    """A link to an image is not left out: it may lie in the folder of another class."""
    (images / "z.png").symlink_to(images / "a.png")
    assert images / "z.png" in find_images([str(images)]).images


def test_too_long_name_is_an_error() -> None:
    """A name that is too long for the file system is a UsageError."""
    with pytest.raises(UsageError, match="cannot be read"):
        find_images(["x" * 5000])
