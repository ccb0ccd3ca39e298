"""The contract of models/NAME/VERSION/."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.bundle import CARD_FILE, MANIFEST_FILE, MODEL_FILE, read_bundle
from service.errors import BundleError
from tests.service.bundles import write_linear_bundle


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """A bundle is read back as it was written."""
    written = write_linear_bundle(tmp_path / "linear" / "1")
    assert read_bundle(tmp_path / "linear" / "1") == written
    assert set(written.manifest.files) == {MODEL_FILE, CARD_FILE}


def test_published_version_is_never_overwritten(tmp_path: Path) -> None:
    """A second write to the same folder is refused and changes nothing."""
    first = write_linear_bundle(tmp_path / "linear")
    with pytest.raises(BundleError, match="another version"):
        write_linear_bundle(tmp_path / "linear", name="other")
    assert read_bundle(tmp_path / "linear") == first


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE])
def test_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    """One changed byte in any file is found, and the file named with both hashes."""
    bundle = write_linear_bundle(tmp_path / "linear")
    path = bundle.folder / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        BundleError,
        match=rf"{name} has sha256 .* but the manifest says {bundle.manifest.files[name]}",
    ):
        read_bundle(bundle.folder)


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE, MANIFEST_FILE])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A missing file is named."""
    bundle = write_linear_bundle(tmp_path / "linear")
    (bundle.folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(bundle.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"class_names": ["one"]}, "class_names"),
        ({"class_names": ["one", "one"]}, "twice"),
        ({"input_size": [28]}, "input_size"),
        ({"input_size": [0, 28]}, "input_size"),
        ({"files": {}}, MODEL_FILE),
        ({"files": {"../../model.onnx": "0" * 64}}, "files"),
        ({"files": {MODEL_FILE: "abc"}}, "files"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_invalid_manifest_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A manifest that breaks its schema is refused, with the field that breaks it; no path leaves the folder."""
    path = write_linear_bundle(tmp_path / "linear").folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=message):
        read_bundle(path.parent)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_manifest_that_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """A manifest that is not a JSON object is refused as such."""
    path = write_linear_bundle(tmp_path / "linear").folder / MANIFEST_FILE
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a valid manifest"):
        read_bundle(path.parent)
