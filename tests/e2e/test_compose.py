"""The Docker image and the compose files on a real Docker engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.e2e.docker import BASE_IMAGE, SECRETS, Run, run
from tests.e2e.server import free_port
from tests.service.images import fault

pytestmark = pytest.mark.timeout(900)  # the first build downloads every dependency

CPU = ("-f", "docker-compose.yml")
GPU = (*CPU, "-f", "docker/compose.gpu.yml")


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


@pytest.fixture(scope="module")
def container(compose: tuple[str, ...], docker: Run, path: str, image: str) -> Iterator[Container]:
    """The service as ``docker compose up`` starts it; ``docker compose down`` must succeed too."""
    port = free_port()
    environment = {
        "PATH": path,
        "DOCKER_BUILDKIT": "1",
        "COMPOSE_PROJECT_NAME": f"fashion-classifier-test-{port}",
        "BASE_IMAGE": BASE_IMAGE,
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
