"""Bundles: how models/NAME/VERSION/ is written, read and verified."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from service.bundle import (
    CARD_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    check_name,
    list_files,
    newest_version,
    read_bundle,
    read_newest_complete,
)
from service.errors import BundleError
from tests.service.bundles import linear_model, write_linear_bundle


def rewrite_manifest(folder: Path, change: dict[str, Any]) -> None:
    """Change fields of the manifest in ``folder``."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_bundle_is_read_back_as_written(tmp_path: Path) -> None:
    """A bundle is read as it was written, and its manifest lists each file except itself."""
    written = write_linear_bundle(tmp_path / "linear" / "1")
    assert read_bundle(tmp_path / "linear" / "1") == written
    assert set(written.manifest.files) == {MODEL_FILE, CARD_FILE}


def test_published_version_is_never_overwritten(tmp_path: Path) -> None:
    """A second write to the same folder is rejected and changes nothing."""
    first = write_linear_bundle(tmp_path / "linear")
    with pytest.raises(BundleError, match="another version"):
        write_linear_bundle(tmp_path / "linear", name="other")
    assert read_bundle(tmp_path / "linear") == first


def test_newest_version_has_the_highest_number(tmp_path: Path) -> None:
    """Versions are compared as numbers. A folder without a manifest is ignored."""
    for version in ("9", "10", "2"):
        write_linear_bundle(tmp_path / version, version=version)
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / MODEL_FILE).write_bytes(linear_model(3, 20, 30))
    assert newest_version(tmp_path) == tmp_path / "10"
    assert newest_version(tmp_path / "2") == tmp_path / "2"


def test_newest_complete_version_is_read(tmp_path: Path) -> None:
    """Newer versions that are incomplete are passed over, and each has an error that names it."""
    for version in ("1", "2", "3"):
        write_linear_bundle(tmp_path / version, version=version)
    (tmp_path / "2" / CARD_FILE).unlink()
    (tmp_path / "3" / MODEL_FILE).write_bytes(b"half")
    bundle, errors = read_newest_complete(tmp_path)
    assert bundle.folder == tmp_path / "1"
    named = [str(tmp_path / "3" / MODEL_FILE), str(tmp_path / "2" / CARD_FILE)]
    assert [str(error).split()[0] for error in errors] == named


def test_without_a_complete_version_the_newest_is_named(tmp_path: Path) -> None:
    """The error is the newest version's."""
    for version in ("1", "2"):
        write_linear_bundle(tmp_path / version, version=version)
        (tmp_path / version / CARD_FILE).unlink()
    with pytest.raises(BundleError, match=re.escape(str(tmp_path / "2" / CARD_FILE))):
        read_newest_complete(tmp_path)


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE])
def test_changed_file_is_rejected(tmp_path: Path, name: str) -> None:
    """A changed byte in any file is detected. The error names the file and both hashes."""
    bundle = write_linear_bundle(tmp_path / "linear")
    path = bundle.folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    expected = rf"{name} has sha256 .* but the manifest says {bundle.manifest.files[name]}"
    with pytest.raises(BundleError, match=expected):
        read_bundle(bundle.folder)


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE, MANIFEST_FILE])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """The error names a missing file."""
    bundle = write_linear_bundle(tmp_path / "linear")
    (bundle.folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(bundle.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"class_names": ["one"]}, "class_names"),
        ({"class_names": ["one", "one"]}, "duplicate"),
        ({"self_test": [1 / 3]}, "self_test holds 1 values for 3 classes"),
        ({"input_size": [28]}, "input_size"),
        ({"input_size": [0, 28]}, "input_size"),
        ({"files": {}}, MODEL_FILE),
        ({"files": {"../../model.onnx": "0" * 64}}, "files"),
        ({"files": {MODEL_FILE: "abc"}}, "files"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_invalid_manifest_is_rejected(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """The error names the invalid field. A file outside the bundle's folder is invalid, too."""
    folder = write_linear_bundle(tmp_path / "linear").folder
    rewrite_manifest(folder, change)
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_manifest_that_is_not_json_is_rejected(tmp_path: Path, content: bytes) -> None:
    """A manifest must be a JSON object."""
    path = write_linear_bundle(tmp_path / "linear").folder / MANIFEST_FILE
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a valid manifest"):
        read_bundle(path.parent)


@pytest.mark.parametrize(
    ("coverages", "minimum_probabilities", "message"),
    [
        ([0.9, 0.8], [[0, 0, 0], [0, 0, 0]], "must ascend"),
        ([0.8, 0.9], [[0, 0, 0]], "has 1 rows for 2 coverages"),
        ([0.8], [[0, 0]], "3 minimum probabilities per coverage"),
        ([1.8], [[0, 0, 0]], "less than or equal to 1"),
    ],
)
def test_inconsistent_prediction_sets_are_rejected(
    tmp_path: Path, coverages: list[float], minimum_probabilities: list[list[float]], message: str
) -> None:
    """Thresholds that do not match the coverages or the classes are rejected."""
    folder = write_linear_bundle(tmp_path / "linear").folder
    sets = {"coverages": coverages, "minimum_probabilities": minimum_probabilities}
    rewrite_manifest(folder, {"prediction_sets": sets})
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)


def test_model_path_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    """The path of a file, of a bundle's own file, or of nothing is a BundleError with the path."""
    bundle = write_linear_bundle(tmp_path / "1", version="1").folder
    for path in (bundle / MODEL_FILE, bundle / MANIFEST_FILE, tmp_path / "missing"):
        with pytest.raises(BundleError, match=path.name):
            read_bundle(newest_version(path))


@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL_FILE, CARD_FILE])
def test_folder_in_place_of_a_file_is_an_error(tmp_path: Path, name: str) -> None:
    """A folder with the name of a bundle's file is a BundleError."""
    bundle = write_linear_bundle(tmp_path / "1", version="1").folder
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(BundleError, match=name):
        read_bundle(newest_version(bundle))


def test_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A folder without the right to read, or with an impossible name, is a BundleError."""
    with pytest.raises(BundleError, match="cannot be read"):
        newest_version(tmp_path / ("x" * 300))
    locked = tmp_path / "locked"
    write_linear_bundle(locked / "1", version="1")
    locked.chmod(0)
    if not os.access(locked, os.R_OK):  # root may read everything
        with pytest.raises(BundleError, match="cannot be read"):
            newest_version(locked)
    locked.chmod(0o700)


def test_every_change_of_a_file_is_seen(tmp_path: Path) -> None:
    """Writing, adding and removing a file changes the list; reading does not."""
    bundle = write_linear_bundle(tmp_path / "1", version="1").folder
    before = list_files(bundle)
    read_bundle(bundle)
    assert list_files(bundle) == before
    content = (bundle / MODEL_FILE).read_bytes()
    (bundle / MODEL_FILE).write_bytes(content[::-1])  # as large as before
    changed = list_files(bundle)
    (bundle / CARD_FILE).unlink()
    assert len({before, changed, list_files(bundle), list_files(tmp_path / "none")}) == 4


@pytest.mark.parametrize("name", ["my_model", "My-model", "a/b", "..", "", "-a", "a b", "é", "a\n"])
def test_name_that_a_bundle_may_not_have_is_an_error(name: str) -> None:
    """The error shows the name and the characters that are allowed."""
    with pytest.raises(BundleError, match="a to z, 0 to 9, dots and dashes"):
        check_name(name)


@pytest.mark.parametrize("name", ["resnet-8", "1", "2026-11-26", "v1.2"])
def test_usual_names_are_allowed(name: str) -> None:
    """Letters, digits, dots and dashes are allowed, in names and in versions."""
    check_name(name)
