"""Runs Docker's client for the tests.

``TEST_BASE_IMAGE`` names the base image; the default is the Dockerfile's. The Docker engine must
have the image already.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from tests.e2e.server import ROOT

BASE_IMAGE = os.environ.get("TEST_BASE_IMAGE") or "python:3.11-slim-bookworm"
SECRETS = {"ca.pem": "PIP_CERT", "pip.conf": "PIP_CONFIG_FILE"}
"""Secrets of the build, and the variables that name their files on this machine."""

Run = Callable[..., str]


def run(*command: str, **environment: str) -> str:
    """Run a command in the repository's root and return its output; fail if the command fails."""
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, (
        f"{' '.join(command)} ended with {result.returncode}: {result.stdout}"
    )
    return result.stdout


def succeeds(*command: str, **environment: str) -> bool:
    """Whether a command exits with code 0."""
    return (
        subprocess.run(
            command, env=os.environ | environment, capture_output=True, check=False
        ).returncode
        == 0
    )
