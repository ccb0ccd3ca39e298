"""Where a run's images lie: remembered by the run, changed by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.fashion_mnist import SampleSource
from training.data.photos.collection import PhotoFolders
from training.errors import RunError
from training.fit.places import Places, find_places, write_places


def test_places_are_remembered_as_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders of a run are found from another working directory too."""
    for name in ("data", "photos", "worn", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    write_places(
        Path("run"), SampleSource(Path("data")), PhotoFolders(Path("photos"), Path("worn"))
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = find_places(tmp_path / "run", Places())
    assert found == Places(tmp_path / "data", tmp_path / "photos", tmp_path / "worn")
    assert found.join_photos() == PhotoFolders(tmp_path / "photos", tmp_path / "worn")


def test_given_folders_come_first(tmp_path: Path) -> None:
    """A folder that the command line gives replaces the run's, which may be gone."""
    write_places(tmp_path, SampleSource(tmp_path / "gone"), None)
    given = Places(data=Path("keras"))
    assert find_places(tmp_path, given) == given
    with pytest.raises(RunError, match=r"gone, which does not exist any more: .* --data"):
        find_places(tmp_path, Places())


def test_copied_run_knows_no_places(tmp_path: Path) -> None:
    """A run folder without the file gives what the command line gives."""
    assert find_places(tmp_path, Places()) == Places()
    assert Places().join_photos() is None


def test_only_wanted_folders_are_looked_for(tmp_path: Path) -> None:
    """A run whose photos are gone still finds its data set."""
    folders = PhotoFolders(tmp_path / "gone", tmp_path / "gone")
    write_places(tmp_path, SampleSource(tmp_path), folders)
    assert find_places(tmp_path, Places(), ["data"]) == Places(data=tmp_path)
    with pytest.raises(RunError, match="--photos"):
        find_places(tmp_path, Places())


@pytest.mark.parametrize("content", ["", '{"data": "/da', '{"data": 1}'])
def test_damaged_places_are_named(tmp_path: Path, content: str) -> None:
    """A file that was cut off or written by hand gives an error that says what to do."""
    (tmp_path / "places.json").write_text(content)
    with pytest.raises(RunError, match="delete it, and pass the folders"):
        find_places(tmp_path, Places())


def test_half_of_the_photos_is_rejected() -> None:
    """Photos need worn garments beside them."""
    with pytest.raises(RunError, match="needed together"):
        Places(photos=Path("photos")).join_photos()
