"""The routes of the page at `/`, of `/docs`, and of the files that they load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.api.page import routes
from service.app import create_app
from service.settings import Settings
from tests.service.api.test_predict import assert_problem

MAX_BYTES = 60_000
FILES = sorted(path.name for path in (routes.FOLDER / "files").iterdir())


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_loads_only_its_own_files(linear: TestClient, path: str) -> None:
    """The policy allows files of the service alone, and the files that a page names exist."""
    page = linear.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    forbidden = ("default-src", "frame-ancestors", "base-uri", "form-action")
    assert {policy[name] for name in forbidden} == {"'none'"}
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page.text)) - {"docs"}
    assert len(named) >= 4
    for name in named:
        assert linear.get(f"/{name}").status_code == 200, name


def test_page_is_small() -> None:
    """The page and all its files have less than 60 kB."""
    paths = [routes.FOLDER / "page.html", *(routes.FOLDER / "files").iterdir()]
    assert sum(path.stat().st_size for path in paths) < MAX_BYTES


def test_every_script_is_loaded(linear: TestClient) -> None:
    """Each file is named by the page or by a script that the page loads."""
    texts = [linear.get("/").text]
    texts += [linear.get(f"/page/{name}").text for name in FILES if name.endswith(".js")]
    for name in FILES:
        assert any(f'page/{name}"' in text or f'"./{name}"' in text for text in texts), name


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/docs", "/docs/swagger-ui.css"])
def test_probe_may_send_head(linear: TestClient, path: str) -> None:
    """A proxy that probes a page with HEAD gets 200 and no body."""
    answer = linear.head(path)
    assert answer.status_code == 200
    assert answer.content == b""


def test_file_is_sent_again_only_if_it_has_changed(linear: TestClient) -> None:
    """A browser asks each time and gets 304 for a file that it has."""
    first = linear.get("/page/page.js")
    assert first.headers["cache-control"] == "no-cache"
    again = linear.get("/page/page.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["/page/nothing.js", "/page/..%2froutes.py", "/page/", "/page", "/docs/__init__.py"]
)
def test_other_files_are_not_found(linear: TestClient, path: str) -> None:
    """Only the pages' own files are served."""
    assert_problem(linear.get(path), 404, "not-found")


def test_page_is_read_only(linear: TestClient) -> None:
    """A POST to the page gets 405."""
    assert_problem(linear.post("/"), 405, "method-not-allowed")


def test_page_can_be_taken_away(linear_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With SERVICE_PAGE=off, the page and its files are not found; /docs stays."""
    monkeypatch.setenv("SERVICE_PAGE", "off")
    with TestClient(create_app(Settings(models=(linear_folder,), device="cpu"))) as client:
        assert_problem(client.get("/"), 404, "not-found")
        assert_problem(client.get("/page/page.js"), 404, "not-found")
        assert client.get("/docs").status_code == 200


def test_requests_for_the_page_are_counted(linear: TestClient) -> None:
    """The metrics have the pages' routes, not a name for each file."""
    for path in ("/", "/page/page.js", "/page/style.css", "/docs"):
        linear.get(path)
    text = linear.get("/metrics").text
    for route in ("/", "/page/{name}", "/docs"):
        assert f'service_requests_total{{route="{route}",status="200"}}' in text
    assert "page.js" not in text
