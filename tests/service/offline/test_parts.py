"""The parts of a source, and which of them a second run leaves out."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from service.errors import SourceError
from service.offline.parts import IMAGES_PER_PART, Part, find_parts, writing
from service.offline.storage import Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with images for three parts."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2 * IMAGES_PER_PART + 1):
        (folder / f"{number:05}.png").touch()
    return folder


def read_paths(part: Part) -> list[str]:
    """Return the paths of a part's images."""
    with parquet.ParquetFile(part.images) as file:
        return list(file.read_row_group(part.row_group).column("path").to_pylist())


def find(source: object, output: Path) -> list[Part]:
    """Return the parts that have no answers yet."""
    return find_parts(Storage(), str(source), str(output))


def test_parts_hold_each_image_once(folder: Path, tmp_path: Path) -> None:
    """The parts of a folder hold all its images, each once, and have different answers."""
    parts = find(folder, tmp_path / "out")
    paths = [path for part in parts for path in read_paths(part)]
    assert paths == [str(path) for path in sorted(folder.iterdir())]
    assert len({part.answers for part in parts}) == len(parts) == 3


def test_second_run_has_the_parts_without_answers(folder: Path, tmp_path: Path) -> None:
    """A part with answers is left out; the others are the same, even if an image is gone."""
    first = find(folder, tmp_path / "out")
    Path(first[1].answers).touch()
    (folder / "00000.png").unlink()
    assert find(folder, tmp_path / "out") == [first[0], first[2]]


def test_two_sources_share_a_folder(folder: Path, tmp_path: Path) -> None:
    """Another source with the same output has parts of its own."""
    first = find(folder, tmp_path / "out")
    second = find(f"{folder}/*0.png", tmp_path / "out")
    assert not {part.answers for part in first} & {part.answers for part in second}
    assert len(read_paths(second[0])) == len(list(folder.glob("*0.png")))


def test_list_gives_its_lines(tmp_path: Path) -> None:
    """A text file gives a path for each line that is not empty."""
    (tmp_path / "list.txt").write_text("a.png\n\n s3://bucket/b c.png \n", encoding="utf-8-sig")
    (part,) = find(tmp_path / "list.txt", tmp_path / "out")
    assert read_paths(part) == ["a.png", "s3://bucket/b c.png"]


def test_parquet_files_give_their_row_groups(tmp_path: Path) -> None:
    """Each row group of a folder of Parquet files is a part."""
    for name in ("a", "b"):
        table = pa.table({"path": [f"{name}{number}" for number in range(5)]})
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=2)
    parts = find(tmp_path, tmp_path / "out")
    assert [read_paths(part) for part in parts] == [
        ["a0", "a1"],
        ["a2", "a3"],
        ["a4"],
        ["b0", "b1"],
        ["b2", "b3"],
        ["b4"],
    ]


def test_folder_that_spark_wrote_is_read(tmp_path: Path) -> None:
    """The files with which Spark marks a folder are neither tables nor images."""
    for mark in ("_SUCCESS", "_started_1", "_metadata.parquet"):
        (tmp_path / mark).touch()
    parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "part-0.parquet")
    (part,) = find(tmp_path, tmp_path / "out")
    assert read_paths(part) == ["a"]


def test_photos_whose_names_begin_with_an_underscore_are_read(tmp_path: Path) -> None:
    """Cameras write such names."""
    (tmp_path / "_DSC1234.jpg").touch()
    (part,) = find(tmp_path, tmp_path / "out")
    assert read_paths(part) == [f"{tmp_path}/_DSC1234.jpg"]


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    """A file that only looks like Parquet is an error that names it."""
    (tmp_path / "images.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(SourceError, match=r"images\.parquet is no complete Parquet file"):
        find(tmp_path / "images.parquet", tmp_path / "out")


def test_list_in_another_encoding_is_named(tmp_path: Path) -> None:
    """A list that is not in UTF-8 is an error that names it."""
    (tmp_path / "list.txt").write_bytes("photos/Rock grün.jpg\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"list\.txt is not text in UTF-8"):
        find(tmp_path / "list.txt", tmp_path / "out")


def test_source_without_images_is_an_error(tmp_path: Path) -> None:
    """The error names the source, and what a source may be."""
    with pytest.raises(SourceError, match="nothing: no file is found"):
        find(tmp_path / "nothing", tmp_path / "out")


def test_parquet_needs_the_column_path(tmp_path: Path) -> None:
    """The error names the column that is missing."""
    parquet.write_table(pa.table({"name": ["a"]}), tmp_path / "images.parquet")
    with pytest.raises(SourceError, match="no column named path"):
        find(tmp_path / "images.parquet", tmp_path / "out")


def test_interrupted_file_does_not_appear(tmp_path: Path) -> None:
    """A file whose writer fails is not there; a program that reads the folder sees none of it."""
    schema = pa.schema({"path": pa.string()})
    written = writing(Storage(), f"{tmp_path}/out/a.parquet", schema)
    written.__enter__().write_table(pa.table({"path": ["a"]}))
    assert not written.__exit__(OSError, OSError("the disk is full"), None)
    assert parquet.read_table(tmp_path / "out").num_rows == 0


def test_answers_inside_the_source_are_not_classified(tmp_path: Path) -> None:
    """A folder of Parquet files may hold the output: its answers are no images of a second run."""
    table = pa.table({"path": ["a.png"]})
    parquet.write_table(table, tmp_path / "in.parquet")
    output = tmp_path / "answers"
    (part,) = find(tmp_path, output)
    with writing(Storage(), part.answers, table.schema) as writer:
        writer.write_table(table)
    assert find(tmp_path, output) == []
    assert find(tmp_path, tmp_path / "others") != []
