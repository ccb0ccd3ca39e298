"""A service that a proxy offers below a path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.api.keys import new_key
from service.app import create_app
from service.settings import Settings
from tests.service.api.test_predict import IMAGE
from tests.service.conftest import wait_until_ready

KEY, LINE = new_key("alice")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Client of a service with keys below /shop/fashion."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(LINE)
    settings = Settings(device="cpu", root_path="/shop/fashion", api_keys_file=keys)
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize("prefix", ["", "/shop/fashion"])
def test_every_route_answers(client: TestClient, prefix: str) -> None:
    """The routes answer whether the proxy removes the path or keeps it."""
    headers = {"X-API-Key": KEY}
    for path in ("/", "/page/page.js", "/health", "/health/live", "/docs", "/openapi.json"):
        assert client.get(prefix + path).status_code == 200, path
    for path in ("/models", "/metrics"):
        assert client.get(prefix + path, headers=headers).status_code == 200, path
    answer = client.post(f"{prefix}/predict", files={"file": IMAGE}, headers=headers)
    assert answer.status_code == 200


def test_page_and_document_name_the_path(client: TestClient) -> None:
    """The pages load files below the path, and the document's server is the path."""
    assert '"/shop/fashion/docs/start.js"' in client.get("/docs").text
    assert '"/shop/fashion/page/page.js"' in client.get("/").text
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/shop/fashion"}]


def test_pages_find_their_files_below_an_unknown_path(linear: TestClient) -> None:
    """Without a setting, the pages name files beside themselves, whatever path leads to them."""
    assert '"docs/start.js"' in linear.get("/docs").text
    assert '"page/page.js"' in linear.get("/").text


@pytest.mark.parametrize("prefix", ["", "/shop/fashion"])
def test_keys_are_needed_below_the_path(client: TestClient, prefix: str) -> None:
    """The path gives no way around the API keys."""
    for path in ("/metrics", "/models", "/shop/fashion/metrics", "/health/../metrics"):
        assert client.get(prefix + path).status_code == 401, path


@pytest.mark.parametrize("path", ["/shop", "/shop/fashionable/health", "/fashion/health"])
def test_other_paths_are_not_removed(client: TestClient, path: str) -> None:
    """A path that only resembles the root path is not removed."""
    assert client.get(path, headers={"X-API-Key": KEY}).status_code == 404


def test_root_path_named_like_a_route_needs_keys(tmp_path: Path) -> None:
    """If the root path is named like a route without a key, the other routes still need keys."""
    keys = tmp_path / "keys"
    keys.write_text(LINE)
    settings = Settings(device="cpu", root_path="/health", api_keys_file=keys)
    with TestClient(create_app(settings)) as client:
        for path in ("/metrics", "/health/metrics", "/health/health/metrics"):
            assert client.get(path).status_code == 401, path


def test_metrics_have_the_routes_without_the_path(client: TestClient) -> None:
    """Requests below the path are counted at their routes."""
    client.get("/shop/fashion/health")
    text = client.get("/shop/fashion/metrics", headers={"X-API-Key": KEY}).text
    assert 'service_requests_total{route="/health",status="200"}' in text
    assert "/shop" not in text
