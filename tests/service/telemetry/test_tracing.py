"""Tracing without a collector; tests/e2e/test_tracing.py tests the traces that a collector gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from starlette.types import Scope

from service.app import create_app
from service.errors import TracingError
from service.settings import Settings
from service.telemetry.tracing import ENDPOINTS, configuration, trace_id

ROOT = Path(__file__).parents[3]
TRACE = "0af7651916cd43dd8448eb211c80319c"

SERVE_ONCE = """
import sys
from starlette.testclient import TestClient
from service.app import create_app
from service.settings import Settings

with TestClient(create_app(Settings(device='cpu'))) as client:
    client.get('/predict')
packages = ('opentelemetry.sdk', 'opentelemetry.exporter')
assert not [name for name in sys.modules if name.startswith(packages)]
"""


def scope(traceparent: str) -> Scope:
    """Build the scope of a request with a ``traceparent`` header."""
    return {"type": "http", "headers": [(b"traceparent", traceparent.encode())]}


@pytest.mark.parametrize("variable", ENDPOINTS)
def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """If a collector is set but the packages are missing, the error says what to install."""
    monkeypatch.setenv(variable, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    message = rf"{variable} is set.*pip install 'fastapi\[opentelemetry\]'"
    with pytest.raises(TracingError, match=message):
        create_app(Settings())


def test_tracing_is_off_by_default() -> None:
    """Without a collector the service does not even import the packages for tracing."""
    subprocess.run([sys.executable, "-c", SERVE_ONCE], cwd=ROOT, check=True)


def test_trace_id_comes_from_the_client() -> None:
    """Without a span, the trace id is the one in the client's traceparent header."""
    assert trace_id(scope(f"00-{TRACE}-b7ad6b7169203331-01")) == TRACE


@pytest.mark.parametrize("header", ["", "00", f"00-{TRACE}", f"00-{TRACE}-b7ad6b7169203331-01\n"])
def test_malformed_traceparent_is_ignored(header: str) -> None:
    """A header that is not a W3C traceparent gives no trace id."""
    assert trace_id(scope(header)) is None


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/v2/health/ready", "/metrics", "/predict"]
)
def test_probes_are_not_traced(path: str) -> None:
    """Health checks come every few seconds and would fill a collector; uploads are traced."""
    is_excluded = configuration()["exclude"]
    assert is_excluded is not None
    assert is_excluded({"path": path}) == (path != "/predict")
