"""The load generator of ``make bench``, against a real server; nothing here depends on how fast anything is."""

from __future__ import annotations

import asyncio

from tests.benchmarks.bench import BUNDLE, png_requests
from tests.benchmarks.pace import closed_loop, open_loop
from tests.e2e.server import serving


def test_every_answer_is_checked() -> None:
    """Under load of both kinds each answer names the class of its own image, and a wrong expectation is noticed."""
    requests = png_requests()
    swapped = [type(request)(request.message, b'"class_name":"Nothing"') for request in requests]
    with serving(device="cpu", model=BUNDLE) as server:
        port = int(server.url.rsplit(":", 1)[1])
        closed = asyncio.run(closed_loop(port, requests, 4, 0.5))
        opened = asyncio.run(open_loop(port, requests, 50, 8, 0.5))
        noticed = asyncio.run(closed_loop(port, swapped, 4, 0.2))
    for result in (closed, opened):
        assert result.seconds
        assert not result.wrong
    assert noticed.wrong
    assert not noticed.seconds


def test_overload_is_refused_and_counted() -> None:
    """What comes while the service is full is answered 503 at once, and what it took on is answered right."""
    with serving(device="cpu", model=BUNDLE, max_uploads_in_flight=1) as server:
        port = int(server.url.rsplit(":", 1)[1])
        result = asyncio.run(closed_loop(port, png_requests(), 16, 0.5))
    assert result.seconds
    assert result.refusal_seconds
    assert result.statuses.keys() == {200, 503}
    assert not result.wrong
