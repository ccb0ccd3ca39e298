"""The server that the pages' examples ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.server import Server, serving


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """Server of the default model."""
    with serving(device="cpu") as running:
        yield running
