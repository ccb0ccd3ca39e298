"""Fixtures: clients of applications that serve a small bundle or the shipped model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="session")
def linear(linear_folder: Path) -> Iterator[TestClient]:
    """Client of an application that serves the linear bundle. The model is loaded."""
    settings = Settings(models=(linear_folder,), device="cpu", max_upload_bytes=1_000_000)
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="session")
def colours(photo_folder: Path) -> Iterator[TestClient]:
    """Client of an application that serves the bundle of photos. The model is loaded."""
    with TestClient(create_app(Settings(models=(photo_folder,), device="cpu"))) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture(scope="session")
def shipped() -> Iterator[TestClient]:
    """Client of an application that serves the shipped model on the CPU. The model is loaded."""
    with TestClient(create_app(Settings(device="cpu"))) as client:
        wait_until_ready(client)
        yield client


def wait_until_ready(client: TestClient) -> None:
    """Wait until /health answers 200."""
    deadline = time.monotonic() + 60
    while client.get("/health").status_code != 200:
        assert time.monotonic() < deadline, client.get("/health").text
        time.sleep(0.05)
