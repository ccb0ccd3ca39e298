"""What workers know of each other, between real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.inference.neighbours import NEIGHBOURS_VARIABLE, QUIET_SECONDS, Neighbours, make_record

LONG_SECONDS = 60  # than which no step of a test takes longer
BEGIN_BATCH = (
    "import service.inference.neighbours as n; n.QUIET_SECONDS = float(__import__('sys').argv[1]); "
    "print(n.Neighbours().begin_batch())"
)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that workers share, named as a supervisor names it."""
    file = make_record(tmp_path)
    monkeypatch.setenv(NEIGHBOURS_VARIABLE, str(file))
    return file


def another_begins_a_batch(quiet_seconds: float = LONG_SECONDS) -> bool:
    """Begin a batch in another process; return whether that one was alone."""
    command = [sys.executable, "-c", BEGIN_BATCH, str(quiet_seconds)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


@pytest.mark.usefixtures("record")
def test_worker_is_alone_until_another_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is alone at first, for as long as no other begins a batch, and again a while after one has."""
    neighbours = Neighbours()
    for _ in range(2):
        assert neighbours.begin_batch()
        assert neighbours.begin_batch()
        assert not another_begins_a_batch()
        monkeypatch.setattr("service.inference.neighbours.QUIET_SECONDS", LONG_SECONDS)
        assert not neighbours.begin_batch()
        assert not neighbours.begin_batch()
        monkeypatch.setattr("service.inference.neighbours.QUIET_SECONDS", QUIET_SECONDS)
        time.sleep(1.5 * QUIET_SECONDS)
    time.sleep(1.5 * QUIET_SECONDS)
    assert another_begins_a_batch(QUIET_SECONDS)


def test_worker_without_a_supervisor_has_no_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process does is nothing to it."""
    monkeypatch.delenv(NEIGHBOURS_VARIABLE, raising=False)
    neighbours = Neighbours()
    assert another_begins_a_batch()
    assert neighbours.begin_batch()


def test_worker_that_shares_nothing_is_never_alone(record: Path) -> None:
    """A file that is gone, or damaged, stops no worker: its batches have one core."""
    record.write_bytes(b"")
    assert not Neighbours().begin_batch()
    record.unlink()
    assert not Neighbours().begin_batch()
