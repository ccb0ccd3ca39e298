"""What the service answers: its routes and its metrics."""

from __future__ import annotations

from functools import cache

from fastapi import FastAPI
from starlette.routing import Match
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings


@cache
def application() -> FastAPI:
    """Build the application with the default settings."""
    return create_app(Settings(device="cpu"))


def is_route(method: str, path: str) -> bool:
    """Tell whether the service has a route for ``method`` and ``path``."""
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    return any(route.matches(scope)[0] == Match.FULL for route in application().routes)


def read_metrics() -> str:
    """Return the text of /metrics."""
    return TestClient(application()).get("/metrics").text
