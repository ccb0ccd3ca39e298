"""Variables that are not settings: misspelt ones are reported, Kubernetes' are not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from service.server.environment import describe_invalid, find_unknown
from service.settings import Settings
from tests.e2e.server import ROOT

# Kubernetes sets these for a Service named "service" with a port 8000 named "http".
LINKS = {
    "SERVICE_SERVICE_HOST": "10.96.0.11",
    "SERVICE_SERVICE_PORT": "8000",
    "SERVICE_SERVICE_PORT_HTTP": "8000",
    "SERVICE_PORT": "tcp://10.96.0.11:8000",
    "SERVICE_PORT_8000_TCP": "tcp://10.96.0.11:8000",
    "SERVICE_PORT_8000_TCP_PROTO": "tcp",
    "SERVICE_PORT_8000_TCP_PORT": "8000",
    "SERVICE_PORT_8000_TCP_ADDR": "10.96.0.11",
    "SERVICE_B_PORT": "udp://[fd00::1]:53",
    "SERVICE_B_SERVICE_HOST": "fd00::1",
}


def test_settings_and_links_are_known() -> None:
    """No setting, in capitals or not, and no variable of Kubernetes is reported."""
    settings = {f"SERVICE_{name.upper()}": "1" for name in Settings.model_fields}
    small = {name.lower(): value for name, value in settings.items()}
    assert list(find_unknown(settings | small | LINKS | {"SERVICES": "1", "PATH": "/"})) == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("SERVICE_WORKRES", "SERVICE_WORKERS"),
        ("SERVICE_PORTS", "SERVICE_PORT"),
        ("SERVICE_THREAD", "SERVICE_THREADS"),
        ("SERVICE_LOGLEVEL", "SERVICE_LOG_LEVEL"),
        ("SERVICE_API_KEY_FILE", "SERVICE_API_KEYS_FILE"),
        ("service_upload_timeout", "SERVICE_UPLOAD_TIMEOUT_SECONDS"),
        ("SERVICE_MAX_UPLOAD_SIZE", "SERVICE_MAX_UPLOAD_BYTES"),
        ("SERVICE_MODLE", "SERVICE_MODELS"),
    ],
)
def test_misspelt_variable_is_named_with_the_nearest(given: str, meant: str) -> None:
    """A misspelt variable is reported once, as it was written, with the nearest setting."""
    (sentence,) = find_unknown({given: "4"})
    assert sentence == f"{given} is not a setting and has no effect; did you mean {meant}?"


def test_variable_that_resembles_no_setting_is_reported() -> None:
    """A variable that resembles no setting is reported with the place of the list."""
    (sentence,) = find_unknown({"SERVICE_QQQQQQQQQQQ": ""})
    assert "docs/settings.md" in sentence


@pytest.mark.parametrize("value", ["tcp://10.96.0.11:8000", "udp://[fd00::1]:53"])
def test_port_of_kubernetes_is_recognised(value: str) -> None:
    """A port that Kubernetes set gets a line that says what to do; others get the reason."""
    line = describe_invalid("SERVICE_PORT", value, "no integer")
    assert value in line
    assert "enableServiceLinks: false" in line
    assert describe_invalid("SERVICE_PORT", "x", "no integer") == "SERVICE_PORT=x: no integer"


@pytest.mark.parametrize("command", ["serve", "health", "doctor"])
def test_commands_answer_the_port_of_kubernetes_with_one_line(command: str) -> None:
    """With the variables of Kubernetes, each command prints one line and exits with 2."""
    run = subprocess.run(
        [sys.executable, "-m", "service", command],
        cwd=ROOT,
        env=LINKS,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert "enableServiceLinks: false" in run.stderr
