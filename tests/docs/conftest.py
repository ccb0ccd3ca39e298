"""The server that answers the examples of the pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.server import Server, serving


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A server with the default model."""
    with serving(device="cpu") as running:
        yield running
