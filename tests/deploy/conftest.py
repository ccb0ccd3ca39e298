"""Fixtures: the manifests of the chart for each of the values, and of KServe."""

from __future__ import annotations

import shutil

import pytest

from tests.deploy.manifests import VALUES, Rendered, render


@pytest.fixture(scope="session", params=VALUES)
def rendered(request: pytest.FixtureRequest, helm_program: str) -> Rendered:
    """Manifests that Helm renders from one of the values."""
    del helm_program
    return render(VALUES[request.param])


@pytest.fixture(scope="session")
def helm_program() -> str:
    """Path of the program helm."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("helm is not installed")
    return program
