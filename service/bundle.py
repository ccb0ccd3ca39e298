"""A model bundle (the folder ``models/NAME/VERSION/``): manifest, reading, writing, checks.

Does not import onnxruntime.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import BundleError

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
CARD_FILE = "MODEL_CARD.md"

# With other characters, a name or version could not be a folder, or a part of a URL, everywhere.
NAME = "^[a-z0-9][a-z0-9.-]*$"
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Probability = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PredictionSets(BaseModel):
    """Thresholds for sets of classes that include the true class with a given probability.

    Row ``i`` of ``minimum_probabilities`` belongs to ``coverages[i]``. It holds one value for each
    class, in the order of the manifest's ``class_names``. A class is in the set if its probability
    is at least this value. ``coverages`` are in ascending order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverages: Annotated[tuple[Probability, ...], Field(min_length=1)]
    minimum_probabilities: tuple[tuple[Probability, ...], ...]

    @model_validator(mode="after")
    def _check(self) -> PredictionSets:
        if list(self.coverages) != sorted(set(self.coverages)):
            raise ValueError(
                f"coverages are {list(self.coverages)}; they must ascend, without duplicates"
            )
        rows, count = len(self.minimum_probabilities), len(self.coverages)
        if rows != count:
            raise ValueError(f"minimum_probabilities has {rows} rows for {count} coverages")
        return self


class Manifest(BaseModel):
    """The content of ``manifest.json``.

    - ``files`` maps each file of the bundle, except the manifest, to its sha256. ``write_bundle``
      sets this field.
    - ``input_size`` is (height, width) in pixels.
    - ``preprocessing`` is the name of the rule that turns a photo into the model's input.
    - ``class_names`` has the order of the model's output.
    - ``self_test`` holds the probabilities that the trained network gave for ``self_test_image``
      before its export. The service compares its own answer with them.
    - ``distance_threshold`` applies to ``distance``, the model's second output: an image counts as
      one of the classes if its distance is at most this value. None if the model has no distance.
    - ``prediction_sets`` is None if no prediction sets were fitted.
    - ``training`` and ``metrics`` hold figures that the service displays but does not use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME)]
    version: Annotated[str, Field(pattern=NAME)]
    files: dict[FileName, Sha256] = {}
    input_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    preprocessing: str
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    opset: int
    self_test: tuple[float, ...]
    distance_threshold: float | None = None
    prediction_sets: PredictionSets | None = None
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    data_sha256: Sha256
    git_commit: str

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names contains a duplicate; each class needs its own name")
        if len(self.self_test) != len(self.class_names):
            raise ValueError(
                f"self_test holds {len(self.self_test)} values for {len(self.class_names)} classes"
            )
        sets = self.prediction_sets
        count = len(self.class_names)
        if sets and {len(row) for row in sets.minimum_probabilities} != {count}:
            raise ValueError(f"prediction_sets needs {count} minimum probabilities per coverage")
        return self


def check_name(name: str) -> None:
    """Check that ``name`` may be the name or the version of a bundle.

    Raises:
        BundleError: It has a character that is not allowed.
    """
    if not re.fullmatch(NAME, name):
        raise BundleError(
            f"the name {name!r} is not allowed; use a to z, 0 to 9, dots and dashes, "
            "and begin with a letter or digit"
        )


def self_test_image(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Draw a grey striped disc, uint8 ``[height, width]`` or ``[height, width, channels]``."""
    height, width, *channels = shape
    rows, columns = np.indices((height, width))
    disc = np.hypot(rows / height - 0.5, columns / width - 0.5) < 0.4
    image = np.where(disc, 55 + (rows * 40 + columns * 9) % 200, 0).astype(np.uint8)
    return np.stack([image] * channels[0], axis=-1) if channels else image


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were read and match its manifest."""

    folder: Path
    manifest: Manifest
    model: bytes
    """The serialized ONNX model. The sha256 was verified on these bytes in memory."""
    card: str
    """The model card, in Markdown."""


def newest_version(folder: Path) -> Path:
    """Return the first of ``list_versions``.

    Raises:
        BundleError: ``folder`` cannot be read.
    """
    return list_versions(folder)[0]


def list_versions(folder: Path) -> list[Path]:
    """List the versions in ``folder``, newest first, or ``folder`` itself if it is a bundle.

    Version numbers are compared as numbers: ``10`` is newer than ``9``. A version without a
    manifest is incomplete, because the manifest is written last; such a version is ignored. If
    there is no version with a manifest, the list holds ``folder``.

    Raises:
        BundleError: ``folder`` cannot be read.
    """
    try:
        if is_bundle(folder):
            return [folder]
        if folder.is_dir():
            os.listdir(folder)  # noqa: PTH208  glob() ignores a missing right to read
        versions = [path.parent for path in folder.glob(f"*/{MANIFEST_FILE}")]
    except OSError as error:
        raise BundleError(
            f"the model's folder {folder} cannot be read: {error.strerror}; "
            "check the path and the rights"
        ) from error
    return sorted(versions, key=_version_order, reverse=True) or [folder]


def list_files(bundle: Path) -> frozenset[tuple[object, ...]]:
    """Return what changes if a file of a bundle's folder is written, added or removed.

    A version that was rejected may be a copy that has not ended: try it again if this changes.
    """
    try:
        status = {path.name: path.stat() for path in bundle.iterdir()}
    except OSError:  # the folder, or a file that iterdir() has named, is gone
        return frozenset()
    return frozenset(
        (name, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
        for name, file in status.items()
    )


def is_bundle(folder: Path) -> bool:
    """Return whether a folder holds a manifest."""
    return (folder / MANIFEST_FILE).exists()


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify the sha256 of every file that its manifest lists.

    Raises:
        BundleError: A file is missing or damaged, or the manifest is invalid.
    """
    manifest = _read_manifest(folder / MANIFEST_FILE)
    if missing := {MODEL_FILE, CARD_FILE} - manifest.files.keys():
        raise BundleError(
            f"{folder / MANIFEST_FILE} does not list the files {', '.join(sorted(missing))}"
        )
    contents = {
        name: _read_verified(folder / name, sha256) for name, sha256 in manifest.files.items()
    }
    return Bundle(
        folder, manifest, contents[MODEL_FILE], contents[CARD_FILE].decode("utf-8", "replace")
    )


def read_newest_complete(folder: Path) -> tuple[Bundle, list[BundleError]]:
    """Read the newest version in ``folder`` that is complete; return the errors of newer ones, too.

    Raises:
        BundleError: No version is complete. The error is the newest version's.
    """
    errors: list[BundleError] = []
    for version in list_versions(folder):
        try:
            return read_bundle(version), errors
        except BundleError as error:
            errors.append(error)
    raise errors[0]


def write_bundle(folder: Path, manifest: Manifest, contents: dict[str, bytes]) -> Bundle:
    """Write ``contents`` (file name to bytes) and the manifest, then read and return the bundle.

    Raises:
        BundleError: The folder exists already, or the written files do not verify.
    """
    if folder.exists():
        raise BundleError(
            f"{folder} exists already; a published version never changes: choose another version"
        )
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = manifest.model_copy(update={"files": hashes})
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return read_bundle(folder)


def _version_order(version: Path) -> list[tuple[bool, int, str]]:
    return [
        (part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in version.name.split(".")
    ]


def _read_verified(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path} is listed in the manifest but cannot be read: {error.strerror}"
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise BundleError(
            f"{path} has sha256 {actual} but the manifest says {sha256}; "
            "restore the file, or export again"
        )
    return content


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} is missing; a bundle is a folder models/NAME/VERSION with {MANIFEST_FILE}"
        ) from error
    except OSError as error:
        hint = "; name the folder, not its file" if path.parent.is_file() else ""
        raise BundleError(f"{path} cannot be read: {error.strerror}{hint}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {e['msg']}" for e in error.errors()
        )
        raise BundleError(f"{path} is not a valid manifest: {faults}") from error
