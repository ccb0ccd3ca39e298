"""What a test of the shared rate limit runs in two processes: it imports little."""

from __future__ import annotations

import os
from pathlib import Path

from service.api.quota import TokenBuckets

TAKEN = 10_000


def take_tokens(folder: Path) -> int:
    """Take ``TAKEN`` of 15,000 tokens while another process does; return how many were admitted."""
    buckets = TokenBuckets(15_000, folder, clock_ns=lambda: 0)
    (folder / f"{os.getpid()}.ready").touch()
    while len(list(folder.glob("*.ready"))) < 2:
        pass
    return sum(buckets.take("client").admitted for _ in range(TAKEN))
