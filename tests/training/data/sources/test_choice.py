"""The choice of a source by the files in its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.sources import open_source
from training.data.sources.csv import TEST_FILE, TRAINING_FILE, CsvPair
from training.data.sources.idx import TEST_FILES, TRAINING_FILES, IdxFolder
from training.errors import DataError


@pytest.mark.parametrize(
    ("present", "kind", "missing"),
    [
        (TRAINING_FILES[0], IdxFolder, TEST_FILES[0]),
        (TEST_FILES[1], IdxFolder, TRAINING_FILES[0]),
        (TRAINING_FILE, CsvPair, TEST_FILE),
        (TEST_FILE, CsvPair, TRAINING_FILE),
    ],
)
def test_one_file_decides(tmp_path: Path, present: str, kind: type, missing: str) -> None:
    """A single file of a format decides for this format, and an error names the missing file."""
    (tmp_path / present).touch()
    (tmp_path / "a class").mkdir()
    source = open_source(tmp_path)
    assert type(source) is kind
    read = source.test if missing in (TEST_FILE, *TEST_FILES) else source.training
    with pytest.raises(DataError, match=f"{missing} cannot be read"):
        read()
