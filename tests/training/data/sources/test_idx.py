"""The IDX source: it verifies the published files, and errors describe damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.training.fashion_mnist import SAMPLE, fashion_mnist, sample
from training.data.sources import open_source
from training.data.sources.idx import PUBLISHED, TEST_FILES, IdxFolder, read_idx, write_idx
from training.errors import DataError


def test_whole_data_set_is_read_and_verified() -> None:
    """The published files pass their checks and hold equally many images of each class."""
    source = fashion_mnist()
    for samples, count in ((source.training(), 60_000), (source.test(), 10_000)):
        assert samples.images.shape == (count, 28, 28)
        assert (np.bincount(samples.labels) == count // 10).all()


def test_write_then_read_gives_the_same(tmp_path: Path) -> None:
    """read_idx reads the values that write_idx wrote, and equal values give equal files."""
    images = sample().images
    write_idx(tmp_path / "images.gz", images)
    assert (read_idx(tmp_path / "images.gz") == images).all()
    assert (tmp_path / "images.gz").read_bytes() == (SAMPLE / "images-idx3-ubyte.gz").read_bytes()


def test_missing_file_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    """A missing file gives an error with its path and with where to get it."""
    with pytest.raises(
        DataError, match=r"train-images-idx3-ubyte\.gz cannot be read.*get the four files"
    ):
        IdxFolder(tmp_path).training()


@pytest.mark.parametrize("keep", [0, 3, 20, 5_000])
def test_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    """A truncated gzip file gives an error with its name and with what to do."""
    name = TEST_FILES[0]
    (tmp_path / name).write_bytes((SAMPLE / "images-idx3-ubyte.gz").read_bytes()[:keep])
    with pytest.raises(DataError, match=rf"{name}.*--data"):
        IdxFolder(tmp_path).test()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not start with the header"),
        (b"hello, world", "does not start with the header"),
        (
            b"\x00\x00\x08\x01\x00\x00\x00\x05abc",
            r"holds 3 values, but its header gives the shape \(5,\)",
        ),
    ],
)
def test_damaged_content_is_described(tmp_path: Path, content: bytes, message: str) -> None:
    """Content that is not IDX or is too short gives an error that describes the fault."""
    (tmp_path / "labels.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "labels.gz")


def test_other_content_under_a_published_name_is_rejected(tmp_path: Path) -> None:
    """The error for a changed label has both hashes, and for a wrong count both counts."""
    source = fashion_mnist()
    labels = source.test().labels.astype(np.uint8)
    labels[0] += 1
    name = TEST_FILES[1]
    write_idx(tmp_path / name, labels)
    (tmp_path / TEST_FILES[0]).symlink_to(source.folder / TEST_FILES[0])
    with pytest.raises(
        DataError,
        match=rf"{name} decompresses to md5 .* expected {PUBLISHED[name][0]}",
    ):
        IdxFolder(tmp_path).test()
    write_idx(tmp_path / name, labels[:9_999])
    with pytest.raises(DataError, match=rf"{name} holds 9,999 items, expected 10,000"):
        IdxFolder(tmp_path).test()


def test_missing_data_is_named(tmp_path: Path) -> None:
    """A path that does not exist gives an error with the path and the allowed sources."""
    with pytest.raises(DataError, match="nowhere is not a data source: pass a folder with"):
        open_source(tmp_path / "nowhere")


@pytest.mark.parametrize("change", [("-idx", "-idx"), ("-idx", ".idx")])
def test_gunzipped_files_are_read(tmp_path: Path, change: tuple[str, str]) -> None:
    """Files that were gunzipped, also with a dot in their names, are read and verified."""
    source = fashion_mnist()
    for name in TEST_FILES:
        plain = name.removesuffix(".gz").replace(*change)
        (tmp_path / plain).write_bytes(gzip.decompress((source.folder / name).read_bytes()))
    opened = open_source(tmp_path)
    assert isinstance(opened, IdxFolder)
    assert opened.test().sha256() == source.test().sha256()


def test_gunzipped_file_with_the_old_name_is_read(tmp_path: Path) -> None:
    """A file that was gunzipped but kept its suffix .gz is read; a truncated one is named."""
    content = gzip.decompress((SAMPLE / "images-idx3-ubyte.gz").read_bytes())
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    assert (read_idx(path) == sample().images).all()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"images\.gz holds"):
        read_idx(path)
