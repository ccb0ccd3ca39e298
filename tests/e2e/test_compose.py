"""The Docker image and the compose files on a real Docker engine.

``TEST_BASE_IMAGE`` names the base image; the default is the Dockerfile's. The Docker engine must
have the image already. If the environment names a configuration file or certificate authority for
pip, the build gets them as secrets.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.server import ROOT, free_port
from tests.service.images import fault

pytestmark = pytest.mark.timeout(900)  # the first build downloads every dependency

DEFAULT_BASE_IMAGE = "python:3.11-slim-bookworm"
CPU = ("-f", "docker-compose.yml")
GPU = (*CPU, "-f", "docker/compose.gpu.yml")
SECRETS = {"ca.pem": "PIP_CERT", "pip.conf": "PIP_CONFIG_FILE"}

Run = Callable[..., str]


@dataclass(frozen=True)
class Container:
    """The container that Compose started for the service."""

    docker: Run
    id: str
    url: str

    def inspect(self) -> dict[str, Any]:
        """Return the engine's description of the container."""
        return dict(json.loads(self.docker("inspect", self.id))[0])

    def wait_until_healthy(self) -> None:
        """Wait until the image's health check has passed."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            state = self.inspect()["State"]
            if state["Health"]["Status"] == "healthy":
                return
            if state["Health"]["Status"] == "unhealthy" or state["Restarting"]:
                break
            time.sleep(0.25)
        log = self.docker("logs", self.id)
        pytest.fail(f"the container did not become healthy, state {state}; its log: {log}")


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


@pytest.fixture(scope="module")
def compose() -> tuple[str, ...]:
    """Docker Compose's command: the plugin, else docker-compose."""
    if shutil.which("docker") and succeeds("docker", "compose", "version"):
        return ("docker", "compose")
    if shutil.which("docker-compose"):
        return ("docker-compose",)
    pytest.skip("Docker Compose is not installed")


@pytest.fixture(scope="module")
def path() -> str:
    """PATH on which the first docker client has BuildKit, because some clients lack it."""
    clients = [shutil.which("docker", path=folder) for folder in os.get_exec_path()]
    for client in filter(None, clients):
        if succeeds(client, "build", "--help", DOCKER_BUILDKIT="1"):
            if not succeeds(client, "info"):
                pytest.skip("no Docker engine runs")
            return f"{Path(client).parent}{os.pathsep}{os.environ['PATH']}"
    pytest.skip("no docker client with BuildKit is installed")


@pytest.fixture(scope="module")
def docker(path: str) -> Run:
    """Docker client."""
    return lambda *words: run("docker", *words, PATH=path, DOCKER_BUILDKIT="1")


@pytest.fixture(scope="module")
def image(docker: Run, path: str) -> str:
    """Image of the service for the CPU; the build cache keeps its layers for the next run."""
    base = os.environ.get("TEST_BASE_IMAGE") or DEFAULT_BASE_IMAGE
    if not succeeds("docker", "image", "inspect", base, PATH=path):
        pytest.skip(f"no base image {base}: pull it, or name another in TEST_BASE_IMAGE")
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
        f"BASE_IMAGE={base}",
        *secrets,
        ".",
    )
    return tag


@pytest.fixture(scope="module")
def container(compose: tuple[str, ...], docker: Run, path: str, image: str) -> Iterator[Container]:
    """The service as ``docker compose up`` starts it; ``docker compose down`` must succeed too."""
    port = free_port()
    environment = {
        "PATH": path,
        "DOCKER_BUILDKIT": "1",
        "COMPOSE_PROJECT_NAME": f"fashion-classifier-test-{port}",
        "BASE_IMAGE": os.environ.get("TEST_BASE_IMAGE") or DEFAULT_BASE_IMAGE,
        "IMAGE": image,
        "PORT": str(port),
    }
    try:
        run(*compose, *CPU, "up", "--build", "--detach", **environment)
        name = run(*compose, *CPU, "ps", "--quiet", **environment).strip()
        started = Container(docker, name, f"http://127.0.0.1:{port}")
        started.wait_until_healthy()
        yield started
    finally:
        run(*compose, *CPU, "down", **environment)


@pytest.mark.parametrize(
    ("files", "expected"),
    [(CPU, ["serve-cpu.txt", "SERVICE_DEVICE: cpu"]), (GPU, ["serve-cuda.txt", "- gpu"])],
)
def test_compose_files_load(
    compose: tuple[str, ...], files: tuple[str, ...], expected: list[str]
) -> None:
    """Compose accepts the files; the GPU override uses the CUDA requirements and reserves a GPU."""
    config = run(*compose, *files, "config")
    assert [words for words in expected if words not in config] == []


def test_container_predicts(container: Container) -> None:
    """A healthy container answers an upload with the right class."""
    answer = httpx2.post(f"{container.url}/predict", files={"file": fault("photo.png")}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.json()["class_name"] == "Ankle boot"
    models = httpx2.get(f"{container.url}/health").json()["models"]
    assert {model["name"]: model["device"] for model in models} == {
        "resnet-8": "cpu",
        "garments": "cpu",
    }


def test_container_is_confined(container: Container) -> None:
    """The container is not root, cannot write, has no capabilities, and reports to nobody."""
    facts = container.inspect()
    assert int(facts["Config"]["User"].split(":")[0]) > 0
    assert facts["HostConfig"]["ReadonlyRootfs"] is True
    assert facts["HostConfig"]["CapDrop"] == ["ALL"]
    assert facts["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]
    assert "ORT_DISABLE_TELEMETRY=1" in facts["Config"]["Env"]
    status = container.docker("exec", container.id, "cat", "/proc/1/status")
    assert {"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} <= set(
        status.splitlines()
    )


def test_image_holds_nothing_of_its_build(docker: Run, image: str) -> None:
    """The image has no compiler, no installer, no package cache and no secret."""
    folders = "/run/secrets ~root/.cache /opt/pip /opt/venv/bin/pip"
    remains = f"command -v cc gcc; ls -A {folders} 2>/dev/null; true"
    assert docker("run", "--rm", "--entrypoint", "sh", image, "-c", remains) == ""
    history = docker("history", "--no-trunc", image)
    assert [variable for variable in SECRETS.values() if variable in history] == []


def test_hangup_reaches_the_service(container: Container) -> None:
    """SIGHUP to the container loads every model again, in every worker."""

    def count_loads() -> int:
        return container.docker("logs", container.id).count("serves on")

    before = count_loads()
    container.docker("kill", "--signal", "HUP", container.id)
    deadline = time.monotonic() + 60
    while count_loads() < 2 * before:
        assert time.monotonic() < deadline
        time.sleep(0.25)
    container.wait_until_healthy()


def test_container_stops_by_itself_and_starts_again(container: Container) -> None:
    """SIGTERM ends the container with exit code 0 in time, and it can start again."""
    container.docker("stop", "--time", "30", container.id)
    state = container.inspect()["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    container.docker("start", container.id)
    container.wait_until_healthy()
