"""Offline answers, compared with those of ``POST /predict``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import InvalidParameterError, NotReadyError
from service.offline.classify import SCHEMA, Classify
from service.offline.parts import find_parts
from service.offline.storage import Storage
from service.settings import Settings
from tests.service.conftest import wait_until_ready

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def classify(settings: Settings) -> Iterator[Classify]:
    """Classifier of parts with the shipped models."""
    with closing(Classify(settings, None, threads=1)) as classify:
        yield classify


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    """Client of the service with the same settings."""
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        yield client


def run(classify: Classify, source: object, output: Path) -> Rows:
    """Classify a source and return its answers by path."""
    counts = [classify(asdict(part)) for part in find_parts(Storage(), str(source), str(output))]
    table = parquet.read_table(output)
    assert table.schema == SCHEMA
    rows = {row["path"]: row for row in table.to_pylist(maps_as_pydicts="strict")}
    assert sum(each["images"] for each in counts) == table.num_rows == len(rows)
    failed = [row for row in rows.values() if row["error"] is not None]
    assert sum(each["errors"] for each in counts) == len(failed)
    return rows


def test_answers_are_those_of_http(
    classify: Classify, client: TestClient, images: Path, tmp_path: Path
) -> None:
    """Each file has one row, with the fields of the service's answer or its problem's detail."""
    rows = run(classify, images, tmp_path)
    files = [path for path in images.rglob("*") if path.is_file() and path.name[0] != "."]
    assert rows.keys() == {str(path) for path in files}
    for path in files:
        answer = client.post("/predict", content=path.read_bytes())
        row, body = rows[str(path)], answer.json()
        if path.name == "large.png":
            assert answer.status_code == 413
            assert "more than 200000 bytes" in row["error"]
        elif answer.status_code == 200:
            assert row["error"] is None
            model = {"name": row["model"], "version": row["version"]}
            assert model == body["model"]
            assert row["class_name"] == body["class_name"]
            assert row["class_id"] == body["class_id"]
            assert row["probabilities"] == pytest.approx(body["probabilities"], abs=1e-5)
            assert row["probability"] == pytest.approx(body["probability"], abs=1e-5)
            assert row["distance"] == pytest.approx(body["distance"], abs=1e-4)
            assert row["in_distribution"] == body["in_distribution"]
        else:
            assert row["error"] == body["detail"]
            assert {row[name] for name in SCHEMA.names[1:-3]} == {None}


def test_images_in_parquet_have_the_answers_of_files(
    classify: Classify, images: Path, tmp_path: Path
) -> None:
    """Images in the column bytes are answered like the files that they come from."""
    files = sorted(path for path in images.iterdir() if path.is_file() and path.name[0] != ".")
    contents = [path.read_bytes() for path in files]
    table = pa.table({"path": [str(path) for path in files], "bytes": contents, "other": contents})
    parquet.write_table(table, tmp_path / "images.parquet", row_group_size=20)
    rows = run(classify, tmp_path / "images.parquet", tmp_path / "from-parquet")
    expected = run(classify, images, tmp_path / "from-files")
    assert len(rows) == len(files)
    for path, row in rows.items():  # the sizes of the batches change the last digits
        for name, value in expected[path].items():
            is_number = isinstance(value, float | dict)
            assert row[name] == (pytest.approx(value, abs=1e-4) if is_number else value)


def test_missing_file_is_a_row(classify: Classify, images: Path, tmp_path: Path) -> None:
    """A file that cannot be read has an error; the other files are answered."""
    good, missing, unknown = images / "photo.png", images / "missing.png", "ftp://host/a.png"
    (tmp_path / "list.txt").write_text(f"{missing}\n{good}\n{unknown}\n{images}\n")
    rows = run(classify, tmp_path / "list.txt", tmp_path / "out")
    assert rows[str(good)]["error"] is None
    assert "No such file" in rows[str(missing)]["error"]
    assert "is not known" in rows[unknown]["error"]
    assert rows[str(images)]["error"]


def test_missing_path_is_a_row(classify: Classify, images: Path, tmp_path: Path) -> None:
    """A table may lack a path; the other images of the table are answered."""
    good = str(images / "photo.png")
    parquet.write_table(pa.table({"path": [None, good]}), tmp_path / "images.parquet")
    rows = run(classify, tmp_path / "images.parquet", tmp_path / "out")
    assert [row["error"] for row in rows.values()] == ["the path is missing", None]


def test_more_images_than_are_read_at_once(
    classify: Classify, images: Path, tmp_path: Path
) -> None:
    """The answers of a large part are in the order of its images, and none is missing."""
    names = [f"{images}/photo.png", f"{images}/missing.png", f"{images}/1x1.png"] * 50
    (tmp_path / "list.txt").write_text("\n".join(names))
    (part,) = find_parts(Storage(), str(tmp_path / "list.txt"), str(tmp_path / "out"))
    assert classify(asdict(part)) == {"images": 150, "errors": 50}
    assert parquet.read_table(part.answers).column("path").to_pylist() == names


def test_named_model_answers(settings: Settings, images: Path, tmp_path: Path) -> None:
    """With a name, this model answers every image; an unknown name is an error at the start."""
    with closing(Classify(settings, "resnet-8", threads=1)) as classify:
        rows = run(classify, images / "photo.png", tmp_path)
    assert {row["model"] for row in rows.values()} == {"resnet-8"}
    with pytest.raises(InvalidParameterError, match="is not served"):
        Classify(settings, "other", threads=1)


def test_damaged_model_is_an_error(tmp_path: Path) -> None:
    """No part is classified if a model cannot be loaded."""
    with pytest.raises(NotReadyError):
        Classify(Settings(models=(tmp_path,), device="cpu"), None, threads=1)
