"""The load generator of ``make bench``, against a real server; nothing here depends on how fast anything is."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.benchmarks.bench import BUNDLE, png_requests, replace_part
from tests.benchmarks.pace import closed_loop, open_loop
from tests.benchmarks.soak import soak
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


def test_figures_go_between_their_marks(tmp_path: Path) -> None:
    """A part is replaced whether it was empty or not, and nothing beside it; a document without its marks is kept."""
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- cells -->\n<!-- end of cells -->\nbelow\n")
    for text in ("| 1 |", "| 2 |\n| 3 |"):
        replace_part(page, "cells", text)
        assert page.read_text() == f"above\n<!-- cells -->\n{text}\n<!-- end of cells -->\nbelow\n"
    with pytest.raises(ValueError, match="unpack"):
        replace_part(page, "start", "| 4 |")
    assert page.read_text().endswith("below\n")


def test_overload_is_refused_and_counted() -> None:
    """What comes while the service is full is answered 503 at once, and what it took on is answered right."""
    with serving(device="cpu", model=BUNDLE, max_uploads_in_flight=1) as server:
        port = int(server.url.rsplit(":", 1)[1])
        result = asyncio.run(closed_loop(port, png_requests(), 16, 0.5))
    assert result.seconds
    assert result.refusal_seconds
    assert result.statuses.keys() == {200, 503}
    assert not result.wrong


def test_soak_tells_memory_and_answers() -> None:
    """Small images and photos are all answered right, and each worker's memory is told from before the load on."""
    text = asyncio.run(soak(20, 3))
    table, answers = text.split("\n\n")
    sizes = [row.split("|")[2:-1] for row in table.splitlines()[2:]]
    assert len(sizes) > 2
    assert all(20 < float(size) < 2000 for row in sizes for size in row)
    counts = re.search(
        r"of ([\d,]+) after the warm-up ([\d,]+) were answered 200; wrong: 0\.$", answers
    )
    assert counts is not None
    due, answered = (int(count.replace(",", "")) for count in counts.groups())
    assert answered >= 0.8 * due  # those at either end of the time are counted on one side only
