"""What a test of the shared rate limit runs in processes of its own: it imports little."""

from __future__ import annotations

from pathlib import Path

from service.api.quota import TokenBuckets


def take_200_tokens(folder: Path) -> int:
    """Take 200 tokens of 300 in this process, at one moment; return how many were admitted."""
    buckets = TokenBuckets(300, folder, clock_ns=lambda: 0)
    return sum(buckets.take("client").admitted for _ in range(200))
