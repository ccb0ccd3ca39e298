"""What ``make serve`` passes on to the service."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.server import ROOT

SHOW = """#!/bin/sh
echo "$SERVICE_HOST $SERVICE_PORT $*"
"""


@pytest.mark.parametrize(
    ("variables", "shown"),
    [
        ({}, "  -m service serve"),
        ({"HOST": "x86_64-conda-linux-gnu"}, "  -m service serve"),
        ({"SERVICE_HOST": "::"}, "::  -m service serve"),
        ({"PORT": "9000"}, " 9000 -m service serve"),
        ({"PORT": "9000", "SERVICE_PORT": "9001"}, " 9001 -m service serve"),
    ],
)
def test_serve_passes_the_address_on(variables: dict[str, str], shown: str, tmp_path: Path) -> None:
    """PORT and SERVICE_* reach the service; HOST, which conda sets, does not."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    python = tmp_path / "python"
    python.write_text(SHOW)
    python.chmod(0o755)
    options = ["--silent", "--assume-old=.venv/all", "SERVE=all", f"BIN={tmp_path}"]
    command = ["make", *options, "serve"]
    environment = {"PATH": os.environ["PATH"], **variables}
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.rstrip("\n") == shown
