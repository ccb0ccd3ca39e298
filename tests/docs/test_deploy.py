"""docs/deploy.md and the Docker files name existing variables and files, and true figures."""

from __future__ import annotations

import re

import pytest

from service.machine.sizing import BYTES_PER_PIXEL, IDLE_BYTES, largest_image_bytes
from service.settings import Settings
from tests.docs.page import find_blocks, read_page
from tests.e2e.server import ROOT

PAGE = read_page("docs/deploy.md")
COMPOSE = read_page("docker-compose.yml") + read_page("docker/compose.gpu.yml")


def test_variables_are_those_of_the_compose_files() -> None:
    """Every variable that a command sets is known: to a compose file, the settings or Docker."""
    words = "\n".join(find_blocks(PAGE, "sh")).split()
    named = {match[1] for word in words if (match := re.match(r"([A-Z][A-Z_]+)=", word))}
    settings = {f"SERVICE_{name.upper()}" for name in Settings.model_fields}
    assert named - set(re.findall(r"\$\{([A-Z_]+)", COMPOSE)) - settings <= {"DOCKER_BUILDKIT"}


@pytest.mark.parametrize("dockerfile", ["docker/Dockerfile", "docker/training.Dockerfile"])
def test_copied_files_exist(dockerfile: str) -> None:
    """Everything that the Dockerfile copies from the repository exists."""
    copied = re.findall(r"^COPY (?!--from)(\S+) ", read_page(dockerfile), re.MULTILINE)
    assert copied
    names = [name.replace("${REQUIREMENTS}", "serve-cpu.txt") for name in copied]
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "name", re.findall(r"(?:requirements/|: )(serve-\w+\.txt)", COMPOSE + PAGE)
)
def test_requirements_exist(name: str) -> None:
    """Each requirements file that the page or a compose file names exists."""
    assert (ROOT / "requirements" / name).exists()


def test_mounted_files_exist() -> None:
    """Every file that Compose mounts exists in the repository."""
    mounted = re.findall(r"- \./(\S+?):", COMPOSE)
    assert mounted
    assert [name for name in mounted if not (ROOT / name).exists()] == []


def test_compose_waits_longer_than_the_service_takes_to_stop() -> None:
    """Compose kills the container only after grace period and shutdown timeout have passed."""
    waits = [int(seconds) for seconds in re.findall(r"stop_grace_period: (\d+)s", COMPOSE)]
    settings = Settings()
    assert waits
    assert min(waits) > settings.grace_seconds + settings.shutdown_timeout_seconds


def test_memory_is_what_the_sizing_plans_with() -> None:
    """The page shows the memory figures that the service uses to choose its number of workers."""
    most = (IDLE_BYTES + largest_image_bytes(Settings())) / 2**20
    assert f"needs {IDLE_BYTES // 2**20} MiB, and {BYTES_PER_PIXEL} bytes for each pixel" in PAGE
    shown = re.search(r"(\d+) MiB per worker at most", PAGE)
    assert shown is not None
    assert int(shown[1]) == pytest.approx(most, abs=10)
