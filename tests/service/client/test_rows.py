"""The rows of an output file, in both formats."""

from __future__ import annotations

import csv
import os
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.client import Prediction, ProblemError, UnreachableError, UsageError
from service.client.rows import MAX_ERROR_CHARACTERS, Row, RowFile, read_kept_rows, read_rows

PREDICTION = Prediction(
    class_id=1,
    class_name="Bag",
    probability=0.75,
    probabilities={"Coat": 0.25, "Bag": 0.75},
    model_name="resnet",
    model_version="3",
    explanation={"warnings": ["small"]},
    distance=-1.5,
    in_distribution=False,
)

awkward = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\r\n",\udc80'), min_size=1
)
answered = st.builds(
    Row,
    path=awkward,
    class_id=st.integers(0, 9),
    class_name=awkward,
    probability=st.floats(0, 1),
    probabilities=st.just({"T-shirt/top": 0.5}),
    model=awkward,
    distance=st.none() | st.floats(-20, 20),
    in_distribution=st.none() | st.booleans(),
    label=st.none() | awkward,
)
failed = st.builds(
    lambda path, text: Row(path, error_type=text, error_title=text, error_detail=text),
    awkward,
    awkward,
)


@pytest.fixture(params=[".csv", ".jsonl"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Path of an output file that does not exist yet."""
    return tmp_path / f"rows{request.param}"


def write(path: Path, *rows: Row) -> None:
    """Write an output file."""
    with closing(RowFile(path, rows)):
        pass


def test_row_of_a_prediction(output: Path) -> None:
    """A row holds the whole prediction, and the file gives the same row back."""
    row = Row.answered(Path("a/boot.png"), PREDICTION)
    assert row == Row(
        path="a/boot.png",
        class_id=1,
        class_name="Bag",
        probability=0.75,
        probabilities={"Coat": 0.25, "Bag": 0.75},
        model="resnet/3",
        explanation={"warnings": ["small"]},
        distance=-1.5,
        in_distribution=False,
    )
    write(output, row)
    assert read_rows(output) == [row]


def test_row_of_an_error() -> None:
    """A row holds an error's type, title, detail and request id, each of bounded length."""
    problem = {"type": "/x", "title": "X", "detail": "a\n" * 1000, "request_id": "r" * 1000}
    row = Row.failed(Path("boot.png"), ProblemError(422, problem))
    assert (row.path, row.error_type, row.error_title) == ("boot.png", "/x", "X")
    assert row.error_detail is not None
    assert row.error_detail.startswith("a a a")
    assert row.request_id is not None
    assert len(row.error_detail) == len(row.request_id) == MAX_ERROR_CHARACTERS
    assert Row.failed(Path("boot.png"), UnreachableError("gone")).request_id is None


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@given(rows=st.lists(answered | failed, min_size=1, max_size=4), cut=st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_cut_file_keeps_its_whole_rows(suffix: str, rows: list[Row], cut: float) -> None:
    """A file gives back rows with any text; a cut file gives the rows before the cut."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows" + suffix)
        ends = []
        with closing(RowFile(path)) as file:
            for row in rows:
                file.append(row)
                ends.append(path.stat().st_size)
        assert read_rows(path) == rows
        length = int(cut * ends[-1])
        os.truncate(path, length)
        whole = [row for row, end in zip(rows, ends, strict=True) if end <= length]
        assert read_rows(path) == whole


def test_resume_keeps_answers_and_other_errors(output: Path) -> None:
    """A resumed run keeps every answer, and the errors of images that are not requested."""
    done = Row.answered(Path("done.png"), PREDICTION)
    again, other = (
        Row.failed(Path(name), UnreachableError("gone")) for name in ("again.png", "other.png")
    )
    write(output, done, again, other)
    asked = [Path("done.png"), Path("again.png"), Path("new.png")]
    assert read_kept_rows(output, asked, resume=True, overwrite=False) == [done, other]
    assert read_kept_rows(output, asked, resume=False, overwrite=True) == []
    with pytest.raises(UsageError, match=r"--resume.*--overwrite"):
        read_kept_rows(output, asked, resume=False, overwrite=False)


def test_new_output_keeps_nothing(output: Path) -> None:
    """With --resume, an output that does not exist has no rows to keep."""
    assert read_kept_rows(output, [Path("a.png")], resume=True, overwrite=False) == []


def test_unwritable_output_is_named(output: Path) -> None:
    """The error names an output whose folder does not exist."""
    path = output.parent / "missing" / output.name
    with pytest.raises(UsageError, match=r"cannot write .*missing"):
        RowFile(path)


def test_unreadable_output_is_an_error(output: Path) -> None:
    """An output that cannot be read is a UsageError."""
    output.mkdir()
    with pytest.raises(UsageError, match="cannot read"):
        read_rows(output)


DONE = Row.answered(Path("d/done.png"), PREDICTION)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\r\n", b"\n"),
        (b"path,class_id", b"\xef\xbb\xbfpath,class_id"),
        (b"path,class_id", b"\xef\xbb\xbf" + b"path,class_id"),
        (b"false", b"FALSE"),
        (b"false", b"False"),
        (b"done.png,1,", b"done.png,1.0,"),
        (b",label", b""),
        (b"\r\n", b"\r\n\r\n"),
    ],
)
def test_csv_that_another_program_saved_is_read(tmp_path: Path, old: bytes, new: bytes) -> None:
    """Byte order mark, line ends, numbers and truth values as other programs write them."""
    output = tmp_path / "rows.csv"
    write(output, DONE)
    text = output.read_bytes()
    assert old in text
    if old == b",label":  # an earlier version of this client wrote no such column
        text = text.replace(b",\r\n", b"\r\n")
    output.write_bytes(text.replace(old, new))
    assert read_rows(output) == [DONE]


def test_csv_of_a_spreadsheet_with_semicolons_is_read(tmp_path: Path) -> None:
    """Excel writes semicolons and decimal commas in many countries."""
    output = tmp_path / "rows.csv"
    write(output, DONE)
    rows = list(csv.reader(output.read_text().splitlines()))
    rows[1] = [cell.replace("0.75", "0,75") if cell == "0.75" else cell for cell in rows[1]]
    rows[1] = ["-1,5" if cell == "-1.5" else cell for cell in rows[1]]
    with output.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    assert read_rows(output) == [DONE]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_in_another_encoding_is_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    """Spreadsheets save "Unicode text" as UTF-16 with a byte order mark, often with tabs."""
    output = tmp_path / "rows.csv"
    done = replace(DONE, path="Größe/靴.png")
    write(output, done)
    rows = list(csv.reader(output.read_text(encoding="utf-8").splitlines()))
    with output.open("w", encoding=encoding, newline="") as file:
        file.write("\ufeff" if encoding == "utf-16-be" else "")
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert read_rows(output) == [done]
    write(output, *read_rows(output))  # a resumed run writes UTF-8 again
    assert output.read_text(encoding="utf-8").startswith("path,class_id")
    assert read_rows(output) == [done]


def test_damaged_utf16_is_an_error(tmp_path: Path) -> None:
    """A UTF-16 file of an odd length cannot be resumed, and is no traceback."""
    output = tmp_path / "rows.csv"
    write(output, DONE)
    output.write_bytes(output.read_text().encode("utf-16") + b"\n")
    with pytest.raises(UsageError, match="cannot be resumed"):
        read_rows(output)


def test_column_of_an_index_is_dropped(tmp_path: Path) -> None:
    """The index that pandas adds is dropped; a column that would be lost is an error."""
    output = tmp_path / "rows.csv"
    write(output, DONE)
    rows = list(csv.reader(output.read_text().splitlines()))
    for title, is_read in {"": True, "Unnamed: 0": True, "checked by": False}.items():
        with output.open("w", newline="") as file:
            csv.writer(file).writerows([[title, *rows[0]], ["0", *rows[1]]])
        if is_read:
            assert read_rows(output) == [DONE]
        else:
            with pytest.raises(UsageError, match="cannot be resumed"):
                read_rows(output)


def test_resume_knows_a_file_under_another_spelling(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed row of an image is dropped when the image is named in another way."""
    monkeypatch.chdir(output.parent)
    write(output, Row.failed(Path("a/b.png"), UnreachableError("gone")))
    for spelling in ("a/b.png", "./a/b.png", "a/c/../b.png", str(Path("a/b.png").absolute())):
        assert read_kept_rows(output, [Path(spelling)], resume=True, overwrite=False) == []


def test_label_is_the_class_of_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An image's label is the class that its folder is named after, however its path is written."""
    for path, label in {"Bags/a": "Bag", "1/a": "Bag", "x/a": None, "Coat/x/../a": "Coat"}.items():
        assert Row.answered(Path(path), PREDICTION).labelled().label == label
    (tmp_path / "Coat").mkdir()
    monkeypatch.chdir(tmp_path / "Coat")
    assert Row.answered(Path("a.png"), PREDICTION).labelled().label == "Coat"
    assert Row.failed(Path("Bag/a"), UnreachableError("gone")).labelled().label is None
