"""Fixtures: images, settings and classifiers for offline runs. Without pyarrow the tests skip."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from service.settings import Settings
from tests.e2e.server import ROOT

SAMPLE = ROOT / "tests/data/fashion-mnist-sample"
FAULTS = ROOT / "tests/data/faults"

collect_ignore_glob = [] if find_spec("pyarrow") else ["test_*.py"]


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Settings with the shipped models and a low limit on the size of a file."""
    return Settings(device="cpu", max_upload_bytes=200_000)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with images of each format, damaged and hidden files, and a sub-folder."""
    folder = tmp_path_factory.mktemp("images")
    for source in [*sorted(SAMPLE.glob("*.png"))[:3], *sorted(FAULTS.glob("*.*"))]:
        if source.suffix != ".py":
            shutil.copy(source, folder)
    (folder / "more").mkdir()
    shutil.copy(FAULTS / "photo.png", folder / "more/photo 100 % [1].png")
    (folder / "large.png").write_bytes(bytes(200_001))
    (folder / ".hidden.png").write_bytes(b"")
    return folder
