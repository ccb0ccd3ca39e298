"""What workers know of each other, between real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.neighbours import NEIGHBOURS_VARIABLE, QUIET_SECONDS, Neighbours, make_record

BEGIN_BATCH = "from service.neighbours import Neighbours; print(Neighbours().begin_batch())"


def test_worker_is_alone_until_another_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is alone once it alone has begun batches for a while; another's batch ends that."""
    monkeypatch.setenv(NEIGHBOURS_VARIABLE, str(make_record(tmp_path)))
    neighbours = Neighbours()
    assert neighbours.exist
    for _ in range(2):
        assert not neighbours.begin_batch()
        assert not neighbours.begin_batch()
        time.sleep(1.5 * QUIET_SECONDS)
        assert neighbours.begin_batch()
        other = subprocess.run([sys.executable, "-c", BEGIN_BATCH], capture_output=True, text=True, check=True)
        assert other.stdout == "False\n"


def test_worker_without_a_supervisor_has_no_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own shares nothing, even with another in the same process."""
    monkeypatch.delenv(NEIGHBOURS_VARIABLE, raising=False)
    neighbours, other = Neighbours(), Neighbours()
    assert not neighbours.exist
    neighbours.begin_batch()
    time.sleep(1.5 * QUIET_SECONDS)
    other.begin_batch()
    assert neighbours.begin_batch()
    assert NEIGHBOURS_VARIABLE not in os.environ
