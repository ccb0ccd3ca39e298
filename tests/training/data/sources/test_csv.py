"""The CSV source gives the same tensors as IDX, and its errors name file, line and value."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.fashion_mnist import fashion_mnist, sample
from training.data.samples import Samples
from training.data.sources import open_source
from training.data.sources.csv import TEST_FILE, TRAINING_FILE, CsvPair, read_csv
from training.errors import DataError

HEADER = "label," + ",".join(f"pixel{number}" for number in range(1, 785))


def to_lines(samples: Samples, header: bool) -> list[str]:
    """Write samples as lines of CSV, as Kaggle does."""
    rows = np.column_stack([samples.labels, samples.images.reshape(len(samples), -1)])
    return [HEADER] * header + [",".join(map(str, row)) for row in rows.tolist()]


def write_lines(path: Path, lines: list[str]) -> Path:
    """Write lines to a file, compressed if its name ends in .gz."""
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("header", [True, False])
def test_sample_gives_the_same_tensors(tmp_path: Path, suffix: str, header: bool) -> None:
    """A CSV file, plain or gzipped, with or without a header, gives the written tensors."""
    path = write_lines(tmp_path / f"images.csv{suffix}", to_lines(sample(), header))
    assert read_csv(path, 300).sha256() == sample().sha256()


def test_whole_data_set_gives_the_same_hash_as_idx(tmp_path: Path) -> None:
    """The 70,000 images in a CSV pair have the same hashes as in the IDX files."""
    idx = fashion_mnist()
    write_lines(tmp_path / TRAINING_FILE, to_lines(idx.training(), header=True))
    write_lines(tmp_path / f"{TEST_FILE}.gz", to_lines(idx.test(), header=False))
    pair = open_source(tmp_path)
    assert isinstance(pair, CsvPair)
    assert pair.training().sha256() == idx.training().sha256()
    assert pair.test().sha256() == idx.test().sha256()


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        (3, lambda values: values[:-1], r"line 3: 784 columns, expected 785"),
        (300, lambda values: [*values, "0"], r"line 300: 786 columns, expected 785"),
        (7, lambda values: ["10", *values[1:]], r"line 7: label '10', allowed: 0 to 9"),
        (7, lambda values: ["-1", *values[1:]], r"line 7: label '-1', allowed: 0 to 9"),
        (
            9,
            lambda values: [*values[:5], "256", *values[6:]],
            r"line 9, column 6: pixel '256', allowed: 0 to 255",
        ),
        (9, lambda values: [*values[:5], "-3", *values[6:]], r"line 9, column 6: pixel '-3'"),
        (9, lambda values: [*values[:5], "0.5", *values[6:]], r"line 9, column 6: pixel '0\.5'"),
        (9, lambda values: [*values[:5], "", *values[6:]], r"line 9, column 6: pixel ''"),
        (2, lambda values: ["boot", *values[1:]], r"line 2: label 'boot'"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_wrong_value_is_named_with_file_and_line(
    tmp_path: Path, suffix: str, line: int, wrong: Callable[[list[str]], list[str]], message: str
) -> None:
    """A wrong column count, label or pixel gives an error with file, line and value."""
    lines = to_lines(sample(), header=True)
    lines[line - 1] = ",".join(wrong(lines[line - 1].split(",")))
    path = write_lines(tmp_path / f"images.csv{suffix}", lines)
    with pytest.raises(DataError, match=rf"images\.csv{suffix}, {message}"):
        read_csv(path, 300)


def test_count_is_checked(tmp_path: Path) -> None:
    """A file with too few images gives an error with both counts."""
    path = write_lines(tmp_path / "images.csv", to_lines(sample(), header=True))
    with pytest.raises(DataError, match=r"images\.csv holds 300 images, expected 60,000"):
        read_csv(path, 60_000)


def test_missing_or_truncated_file_is_named(tmp_path: Path) -> None:
    """A missing file and a truncated gzip file give errors that name the file."""
    write_lines(tmp_path / f"{TRAINING_FILE}.gz", to_lines(sample(), header=True))
    pair = CsvPair(tmp_path, 300, 10)
    assert len(pair.training()) == 300
    with pytest.raises(DataError, match=rf"{TEST_FILE} cannot be read"):
        pair.test()
    whole = (tmp_path / f"{TRAINING_FILE}.gz").read_bytes()
    (tmp_path / f"{TRAINING_FILE}.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{TRAINING_FILE}\.gz cannot be read"):
        pair.training()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_encodings_of_other_programs_are_read(
    tmp_path: Path, encoding: str, header: bool, suffix: str
) -> None:
    """A file with a byte order mark, in UTF-8 or UTF-16, gives the written tensors."""
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    text = mark + "\r\n".join([*to_lines(sample(), header), ""])
    content = text.encode(encoding)
    path = tmp_path / f"images.csv{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert read_csv(path, 300).sha256() == sample().sha256()


@pytest.mark.parametrize("content", [b"label,\xff\xfe", b"\xff\xfe\x00\xd8\x00\xd8", b"\x1f\x8b"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_file_that_is_no_text_is_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    """A file in another encoding, or a damaged gzip file, is an error that names the file."""
    path = tmp_path / f"images.csv{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"images\.csv{suffix}"):
        read_csv(path, 300)


def test_wrong_value_is_named_in_a_file_with_a_mark(tmp_path: Path) -> None:
    """A wrong line is found in a file with a byte order mark, too."""
    path = tmp_path / "images.csv"
    path.write_bytes(b"\xef\xbb\xbflabel,pixel1\n0,0\n")
    with pytest.raises(DataError, match="line 2: 2 columns, expected 785"):
        read_csv(path, 300)
