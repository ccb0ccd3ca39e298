"""Fixtures that several files share: a browser, and the image of the service in a Docker engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import start_browser
from tests.e2e.docker import BASE_IMAGE, SECRETS, Run, run, succeeds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with start_browser() as running:
        yield running


@pytest.fixture(scope="session")
def compose() -> tuple[str, ...]:
    """Docker Compose's command: the plugin, else docker-compose."""
    if shutil.which("docker") and succeeds("docker", "compose", "version"):
        return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    pytest.skip("Docker Compose is not installed")


@pytest.fixture(scope="session")
def path() -> str:
    """PATH on which the first docker client has BuildKit, because some clients lack it."""
    clients = [shutil.which("docker", path=folder) for folder in os.get_exec_path()]
    for client in filter(None, clients):
        if succeeds(client, "build", "--help", DOCKER_BUILDKIT="1"):
            if not succeeds(client, "info"):
                pytest.skip("no Docker engine runs")
            return f"{Path(client).parent}{os.pathsep}{os.environ['PATH']}"
    pytest.skip("no docker client with BuildKit is installed")


@pytest.fixture(scope="session")
def docker(path: str) -> Run:
    """Docker client."""
    return lambda *words: run("docker", *words, PATH=path, DOCKER_BUILDKIT="1")


@pytest.fixture(scope="session")
def image(docker: Run, path: str) -> str:
    """Image of the service for the CPU; the build cache keeps its layers for the next run."""
    if not succeeds("docker", "image", "inspect", BASE_IMAGE, PATH=path):
        pytest.skip(f"no base image {BASE_IMAGE}: pull it, or name another in TEST_BASE_IMAGE")
    secrets = [
        f"--secret=id={name},src={os.environ[variable]}"
        for name, variable in SECRETS.items()
        if variable in os.environ
    ]
    tag = "fashion-classifier:test"
    docker(
        "build",
        "-f",
        "docker/Dockerfile",
        "-t",
        tag,
        "--build-arg",
        f"BASE_IMAGE={BASE_IMAGE}",
        *secrets,
        ".",
    )
    return tag
