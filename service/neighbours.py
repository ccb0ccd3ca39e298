"""Own what the workers of one supervisor know of each other: whether any but this one has been at work just now."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

NEIGHBOURS_VARIABLE = "SERVICE_NEIGHBOURS"
"""The environment variable by which a supervisor hands its workers the file that they share."""
QUIET_SECONDS = 0.05  # longer than a worker under load lets pass between two batches

_RECORD = struct.Struct("=qd")  # who began the last batch, and when another's went before it


class Neighbours:
    """The memory in which each worker notes that it begins a batch; one that has no supervisor is alone.

    It has no lock: two that write at once may both believe for one batch that they are alone, or that they are not.
    """

    def __init__(self) -> None:
        self._own_id = os.getpid()
        name = os.environ.get(NEIGHBOURS_VARIABLE)
        if name is None:
            self._memory = mmap.mmap(-1, _RECORD.size)
        else:
            with Path(name).open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), _RECORD.size)

    @property
    def exist(self) -> bool:
        """Whether this process is one of several."""
        return NEIGHBOURS_VARIABLE in os.environ

    def begin_batch(self) -> bool:
        """Note that a batch begins here; return whether no other worker has begun one for a while."""
        last: int
        since: float
        last, since = _RECORD.unpack_from(self._memory)
        now = time.monotonic()  # one clock for all processes
        if last != self._own_id:
            _RECORD.pack_into(self._memory, 0, self._own_id, now)
            return False
        return now - since > QUIET_SECONDS


def make_record(folder: Path) -> Path:
    """Create the file for ``NEIGHBOURS_VARIABLE`` in ``folder``."""
    file = folder / "neighbours"
    file.write_bytes(bytes(_RECORD.size))
    return file
