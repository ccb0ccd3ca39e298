"""Fixtures: a scripted server and a folder of images for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.client.scripted_server import ScriptedServer, running


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server."""
    with running() as server:
        yield server


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three image files, one in a subfolder, and two files that a search ignores."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for name, script in {"a.png": "200 0", "b.JPG": "200 1", "deeper/c.webp": "200 2"}.items():
        (folder / name).write_text(script)
    (folder / "notes.txt").write_text("422")
    (folder / "._a.png").write_text("422")
    return folder
