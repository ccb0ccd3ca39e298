"""docs/deploy.md and the Docker files name existing variables and files, and true figures."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx2
import pytest

from service.machine.sizing import BYTES_PER_PIXEL, IDLE_BYTES, largest_image_bytes
from service.settings import Settings
from tests.docs.page import find_blocks, read_page
from tests.e2e.server import ROOT, Server, free_port, serving, wait_until
from tests.service.images import fault

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
    idle = f"Allow {IDLE_BYTES // 2**20} MiB for a worker"
    assert f"{idle}, and {BYTES_PER_PIXEL} bytes for each pixel" in " ".join(PAGE.split())
    shown = re.search(r"(\d+) MiB per worker at most", PAGE)
    assert shown is not None
    assert int(shown[1]) == pytest.approx(most, abs=10)


def test_override_names_settings_and_mounted_folders() -> None:
    """The Compose override sets only known variables, and to paths in a mounted folder or image."""
    (block,) = find_blocks(PAGE, "yaml")
    variables = dict(re.findall(r"^ +([A-Z_]+): (\S+)$", block, re.MULTILINE))
    settings = {f"SERVICE_{name.upper()}" for name in Settings.model_fields}
    assert variables.keys() - settings == {"FORWARDED_ALLOW_IPS"}
    folders = tuple(re.findall(r"- \./\S+?:(\S+):ro$", block, re.MULTILINE))
    assert len(folders) == 2
    paths = [*variables["SERVICE_MODELS"].split(","), variables["SERVICE_API_KEYS_FILE"]]
    assert [path for path in paths if not path.startswith((*folders, "/app/models/"))] == []
    assert set(re.findall(r"user (\d+)", PAGE)) == {"10001"}
    assert "USER 10001:10001\n" in read_page("docker/Dockerfile")


def test_signals_of_compose_reach_the_service() -> None:
    """Process 1 of the container is the service: the image starts it without a shell."""
    assert 'ENTRYPOINT ["python", "-m", "service"]' in read_page("docker/Dockerfile")


NGINX = """daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A service behind a real nginx with the page's configuration, and the address in nginx."""
    nginx = shutil.which("nginx") or pytest.skip("nginx is not installed: apt-get install nginx")
    folder = tmp_path_factory.mktemp("nginx")
    settings = {"device": "cpu", "root_path": "/fashion", "keep_alive_seconds": 65}
    with pytest.MonkeyPatch.context() as patch:
        # The service trusts the network of its clients too, as it may with Docker.
        patch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.0/8")
        with serving(**settings, log_client_address=True) as server:
            port = free_port()
            (servers,) = find_blocks(PAGE, "nginx")
            servers = servers.replace("listen 80;", f"listen 127.0.0.1:{port};")
            servers = servers.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
            (folder / "nginx.conf").write_text(NGINX.format(folder=folder, servers=servers))
            command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                try:
                    wait_for(f"http://127.0.0.1:{port}/fashion/health")
                    yield server, f"http://127.0.0.1:{port}/fashion"
                finally:
                    process.terminate()


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    transport = httpx2.HTTPTransport(retries=10)
    with httpx2.Client(transport=transport) as client:
        assert client.get(url, timeout=30).status_code == 200


def test_nginx_offers_the_service_below_its_path(proxied: tuple[Server, str]) -> None:
    """Through nginx an upload is answered, and /docs gets all of its files below the path."""
    _, url = proxied
    answer = httpx2.post(f"{url}/predict", files={"file": fault("photo.png")}, timeout=30)
    assert answer.status_code == 200, answer.text
    page = httpx2.get(f"{url}/docs").text
    links = [*re.findall(r'(?:src|href)="([^"]+)"', page), "openapi.json"]
    assert len(links) > 2
    for link in links:
        assert httpx2.get(urljoin(f"{url}/docs", link)).status_code == 200, link
    assert httpx2.get(f"{url}/openapi.json").json()["servers"] == [{"url": "/fashion"}]


def test_nginx_leaves_too_large_bodies_to_the_service(proxied: tuple[Server, str]) -> None:
    """A body that is just too large gets the service's problem, not nginx's page."""
    _, url = proxied
    body = bytes(Settings().max_upload_bytes + 1)
    answer = httpx2.post(f"{url}/predict", content=body, timeout=30)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "/%6detrics", "/fashion/metrics", "/health/../metrics"]
)
def test_nginx_keeps_the_metrics_inside(proxied: tuple[Server, str], path: str) -> None:
    """No way to write the path of the metrics reaches them through nginx."""
    server, url = proxied
    command = ["curl", "-sS", "--path-as-is", url + path]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "service_requests_total" not in answer
    assert "404 Not Found" in answer
    assert server.get("/metrics").status_code == 200


def test_nginx_forwards_the_address_of_the_client(proxied: tuple[Server, str]) -> None:
    """The service believes nginx, and a client of a trusted network cannot choose its address."""
    server, url = proxied
    with httpx2.Client(transport=httpx2.HTTPTransport(local_address="127.0.0.2")) as client:
        for sent in ("192.0.2.7", "127.0.0.1, 192.0.2.7"):
            client.get(f"{url}/health/live", headers={"X-Forwarded-For": sent})
    # A line is written after its answer.
    wait_until(lambda: server.read_log().count("/health/live") == 4)  # as path and as route
    lines = [line for line in server.read_log().splitlines() if "/health/live" in line]
    assert [line for line in lines if '"client_address": "127.0.0.2"' not in line] == []
