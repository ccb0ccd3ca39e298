"""Own what the workers of one supervisor know of each other: whether any but this one has been at work just now."""

from __future__ import annotations

import logging
import mmap
import os
import struct
import time
from pathlib import Path

NEIGHBOURS_VARIABLE = "SERVICE_NEIGHBOURS"
"""The environment variable by which a supervisor hands its workers the file that they share."""
QUIET_SECONDS = 0.05  # longer than a small model's worker under load lets pass between two batches

log = logging.getLogger(__name__)

_RECORD = struct.Struct(
    "=qdd"
)  # who began the last batch, when another last began one, and when that one did


class Neighbours:
    """The memory in which each worker notes that it begins a batch; one that has no supervisor shares it with nobody.

    It has no lock: what two write at once may be mixed up, and one batch then runs on more or fewer cores than it
    should.
    """

    def __init__(self) -> None:
        self._own_id = os.getpid()
        name = os.environ.get(NEIGHBOURS_VARIABLE)
        self._memory: mmap.mmap | None = None
        try:
            if name is None:
                self._memory = mmap.mmap(-1, _RECORD.size)
            else:
                with Path(name).open("r+b") as file:
                    self._memory = mmap.mmap(file.fileno(), _RECORD.size)
        except (OSError, ValueError) as error:
            log.warning(
                "%s cannot be shared (%s): no batch will have more than one core", name, error
            )

    def begin_batch(self) -> bool:
        """Note that a batch begins here; return whether no other worker has begun one for ``QUIET_SECONDS``."""
        if self._memory is None:
            return False
        last_id: int
        others_time: float
        last_time: float
        last_id, others_time, last_time = _RECORD.unpack_from(self._memory)
        if last_id != self._own_id:
            others_time = last_time
        now = time.monotonic()  # one clock for all processes
        _RECORD.pack_into(self._memory, 0, self._own_id, others_time, now)
        return now - others_time > QUIET_SECONDS


def make_record(folder: Path) -> Path:
    """Create the file for ``NEIGHBOURS_VARIABLE`` in ``folder``."""
    file = folder / "neighbours"
    file.write_bytes(bytes(_RECORD.size))
    return file
