"""The attacks of ``make torture``, for a few seconds each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.benchmarks import torture
from tests.benchmarks.load import Upload, golden_uploads


@pytest.fixture(scope="module")
def uploads() -> list[Upload]:
    """The golden set."""
    return golden_uploads()


def test_hostile_clients_do_no_harm(uploads: list[Upload]) -> None:
    """Under attack, every valid request is answered right or rejected with 503."""
    rows = asyncio.run(torture.storm(4, uploads))
    # A few seconds are too short to fit memory's slope and to end the two slow attacks.
    assert not [row for row in rows if row.lost and row.fault != "memory"]
    assert all(row.times for row in rows if row.fault not in ("silent client", "large image"))


def test_stop_loses_nothing(uploads: list[Upload]) -> None:
    """A server that is stopped under load answers every request that it accepted."""
    assert asyncio.run(torture.terminate(1, uploads)).lost == 0


def test_killed_worker_harms_nothing_else(uploads: list[Upload]) -> None:
    """When a worker is killed under load, only the requests on its connections fail."""
    assert asyncio.run(torture.kill_worker(1, uploads)).lost == 0


@pytest.mark.parametrize("corrupt", [True, False])
def test_swap_loses_nothing(uploads: list[Upload], corrupt: bool) -> None:
    """A new version takes over, a corrupt one is rejected, and no request fails meanwhile."""
    assert asyncio.run(torture.swap(1, uploads, corrupt=corrupt)).lost == 0


def test_document_shows_every_row(tmp_path: Path) -> None:
    """The page has a line for each row, with its counts, and the sum of the lost requests."""
    row = torture.Row("fault", "what was done", 3, "seen", 1)
    (tmp_path / "page.md").write_text("above\n<!-- torture -->\n<!-- end of torture -->\nbelow\n")
    torture.write_document(tmp_path / "page.md", [row, row], 5)
    page = (tmp_path / "page.md").read_text()
    assert page.count("| fault | what was done | 3 | seen | 1 |") == 2
    assert "In this run: 2." in page
    assert page.startswith("above\n")
    assert page.endswith("\nbelow\n")
