"""GET /health and the paths below it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.bundles import write_linear_bundle
from tests.service.images import encode, noise


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_ready_service_says_what_it_runs_on(linear: TestClient, path: str) -> None:
    """A ready service answers 200 with its model and its session's providers."""
    response = linear.get(path)
    assert response.status_code == 200
    body = response.json()
    assert body["uptime_seconds"] >= 0
    assert body["status"] == "ready"
    (model,) = body["models"]
    expected = {
        "name": "linear",
        "version": "1",
        "status": "ready",
        "device": "cpu",
        "providers": ["CPUExecutionProvider"],
    }
    assert model.items() >= expected.items()


def test_service_that_has_not_loaded_is_alive_but_not_ready(linear_folder: Path) -> None:
    """Until the model is loaded, /health and /predict answer 503, and /health/live 200."""

    async def ask() -> tuple[httpx2.Response, httpx2.Response, httpx2.Response]:
        # This transport does not start the application, so the model is never loaded.
        transport = httpx2.ASGITransport(create_app(Settings(models=(linear_folder,))))
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
            upload = client.post("/predict", files={"file": encode(noise(20, 30))})
            return await client.get("/health"), await client.get("/health/live"), await upload

    health, live, upload = asyncio.run(ask())
    assert health.status_code == 503
    assert health.json()["status"] == "starting"
    (model,) = health.json()["models"]
    expected: dict[str, Any] = {"version": None, "status": "starting", "device": None}
    expected["providers"] = []
    assert model.items() >= expected.items()
    assert live.status_code == 200
    assert live.json() == {"status": "alive"}
    assert upload.status_code == 503
    assert upload.json()["type"].endswith(":not-ready")
    assert int(upload.headers["retry-after"]) >= 1


@pytest.mark.parametrize("damage", ["missing", "preprocessing"])
def test_service_without_a_model_says_failed_and_stops(tmp_path: Path, damage: str) -> None:
    """If no bundle can be served, /health says `failed` and the server is asked to stop."""
    folder = tmp_path / "linear"
    if damage == "preprocessing":
        write_linear_bundle(folder, preprocessing="another")
    stops: list[str] = []
    with TestClient(
        create_app(Settings(models=(folder,)), on_failure=lambda: stops.append("stop"))
    ) as client:
        deadline = time.monotonic() + 60
        while client.get("/health").json()["status"] == "starting":
            assert time.monotonic() < deadline
        assert client.get("/health").status_code == 503
        assert client.get("/health").json()["status"] == "failed"
    assert stops == ["stop"]
