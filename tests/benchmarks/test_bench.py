"""``make bench`` and ``make soak`` against a real server; the tests expect no speed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.benchmarks.bench import BUNDLE, png_requests, replace_part
from tests.benchmarks.pace import closed_loop, open_loop, port_of
from tests.benchmarks.soak import soak
from tests.e2e.server import serving


def test_every_answer_is_checked() -> None:
    """In both loops each answer has its own image's class, and a wrong class is counted."""
    requests = png_requests()
    swapped = [type(request)(request.message, b'"class_name":"Nothing"') for request in requests]
    with serving(device="cpu", models=BUNDLE) as server:
        port = port_of(server)
        closed = asyncio.run(closed_loop(port, requests, 4, 0.5))
        opened = asyncio.run(open_loop(port, requests, 50, 8, 0.5))
        noticed = asyncio.run(closed_loop(port, swapped, 4, 0.2))
    for result in (closed, opened):
        assert result.seconds
        assert not result.wrong
    assert noticed.wrong
    assert not noticed.seconds


def test_figures_go_between_their_marks(tmp_path: Path) -> None:
    """Only the text between a part's marks changes. Without marks the document stays as it is."""
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- cells -->\n<!-- end of cells -->\nbelow\n")
    for text in ("| 1 |", "| 2 |\n| 3 |"):
        replace_part(page, "cells", text)
        assert page.read_text() == f"above\n<!-- cells -->\n{text}\n<!-- end of cells -->\nbelow\n"
    with pytest.raises(ValueError, match="unpack"):
        replace_part(page, "start", "| 4 |")
    assert page.read_text().endswith("below\n")


def test_overload_is_rejected_and_counted() -> None:
    """A full service rejects requests with 503 and answers the accepted requests right."""
    with serving(device="cpu", models=BUNDLE, max_uploads_in_flight=1) as server:
        result = asyncio.run(closed_loop(port_of(server), png_requests(), 16, 0.5))
    assert result.seconds
    assert result.rejection_seconds
    assert 0 < result.rejection_percentile_ms(99) < 60_000
    assert result.statuses.keys() == {200, 503}
    assert not result.wrong


def test_soak_shows_memory_and_answers() -> None:
    """Small images and photos are all answered right, and the table has each worker's memory."""
    text = asyncio.run(soak(20, 3))
    table, answers = text.split("\n\n")
    sizes = [row.split("|")[2:-1] for row in table.splitlines()[2:]]
    assert len(sizes) > 2
    assert all(20 < float(size) < 2000 for row in sizes for size in row)
    rows = [row.split("|")[1:-1] for row in answers.splitlines()[2:]]
    counts = {name.strip(): int(count.replace(",", "")) for name, count in rows}
    assert list(counts) == [
        "sent after the warm-up, 20 a second",
        "answered 200",
        "wrong answers",
    ]
    due, answered, wrong = counts.values()
    assert wrong == 0
    assert answered >= 0.8 * due  # answers near the start or end may not count
