"""The metrics, alerts and dashboard, with a real Prometheus; skipped if it is not installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.api.keys import new_key
from tests.e2e.docker import run
from tests.e2e.server import ROOT, Server, free_port, serving, wait_until
from tests.service.images import fault

MONITORING = ROOT / "docker" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
QUERIES = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]
KEY, KEY_LINE = new_key("prometheus")
# Replacements in the configuration: shorter intervals, so that no test waits for minutes.
HURRY = {"15s": "500ms", r"for: \d+m": "for: 0s"}


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus that scrapes ``server``."""

    server: Server
    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer from the HTTP API."""
        answer = httpx2.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """Evaluate an expression of the dashboard; Grafana would set the rate interval in it."""
        expression = expression.replace("$__rate_interval", "20s")
        result: list[Any] = self.ask("query", query=expression)["result"]
        return result

    def firing(self) -> set[str]:
        """Return the names of the firing alerts."""
        return {
            a["labels"]["alertname"] for a in self.ask("alerts")["alerts"] if a["state"] == "firing"
        }


def tool(name: str) -> str:
    """Return the path of a program in Debian's package prometheus, or skip the test."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed: apt-get install prometheus")


@contextmanager
def scraping(server: Server, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with our files, our API key and short intervals, and scrape ``server``."""
    key = folder / "key"
    key.write_text(KEY + "\n")
    for name in ("prometheus.yml", "alerts.yml"):
        text = (MONITORING / name).read_text()
        for pattern, quick in HURRY.items():
            text = re.sub(pattern, quick, text)
        text = text.replace("service:8000", server.url.removeprefix("http://"))
        text = text.replace("# authorization", "authorization")
        text = text.replace("#   credentials_file", "  credentials_file")
        (folder / name).write_text(text.replace("/etc/prometheus/key", str(key)))
    address = f"127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            prometheus = Prometheus(server, f"http://{address}")
            wait_until(lambda: is_ready(prometheus.url), why=(folder / "log").read_text)
            yield prometheus
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    """Whether Prometheus has started."""
    try:
        return httpx2.get(f"{url}/-/ready").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def prometheus(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus that has scraped a server with API keys during good and bad uploads."""
    tool("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    keys = folder / "keys"
    keys.write_text(KEY_LINE)
    settings = {
        "device": "cpu",
        "workers": request.param,
        "api_keys_file": keys,
        "grace_seconds": 0,
    }
    with serving(**settings) as server, scraping(server, folder) as started:
        wait_until(
            lambda: bool(started.query("service_ready == 1")), why=lambda: started.ask("targets")
        )
        good, bad = ({"file": fault(name)} for name in ("photo.png", "vector.svg"))
        with httpx2.Client(base_url=server.url, headers={"X-API-Key": KEY}, timeout=30) as client:
            for _ in range(10):
                assert client.post("/predict", files=good).status_code == 200
                assert client.post("/predict", files=bad).status_code == 422
                time.sleep(0.4)
        yield started


def test_files_are_valid() -> None:
    """Prometheus' own tool accepts the configuration and the rules."""
    subprocess.run([tool("promtool"), "check", "config", MONITORING / "prometheus.yml"], check=True)


def test_alerts_fire_when_they_should() -> None:
    """Each alert has a promtool test, which passes, and is listed in docs/monitoring.md."""
    tests = Path(__file__).parent / "alert_tests.yml"
    subprocess.run([tool("promtool"), "test", "rules", tests], check=True)
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yml").read_text())
    assert alerts == [alert for alert in alerts if f'alertname="{alert}"' in tests.read_text()]
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert alerts == re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE)


def test_every_metric_in_use_exists(prometheus: Prometheus) -> None:
    """Prometheus has received every metric that the alerts and the dashboard use."""
    alerts = (MONITORING / "alerts.yml").read_text()
    used = " ".join([alerts, *(expression for _, expression in QUERIES)])
    assert set(re.findall(r"\bservice_\w+", used)) <= set(prometheus.ask("label/__name__/values"))


def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus) -> None:
    """After some uploads, every query has a value, and no value is NaN."""
    for title, expression in QUERIES:
        values = [sample["value"][1] for sample in prometheus.query(expression)]
        assert values, f"{title}: {expression}"
        assert "NaN" not in values, f"{title}: {expression}"


def test_dashboard_uses_the_provisioned_data_source() -> None:
    """The dashboard's data source has the uid in datasource.yml."""
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"prometheus"}
    assert "uid: prometheus\n" in (MONITORING / "datasource.yml").read_text()


def test_alerts_follow_a_server_to_its_end(tmp_path: Path, linear_folder: Path) -> None:
    """No alert fires at first; one fires for rejected uploads, for draining, and after the exit."""
    tool("prometheus")
    settings = {"models": linear_folder, "device": "cpu", "grace_seconds": 5}
    with serving(**settings) as server, scraping(server, tmp_path) as prometheus:
        wait_until(
            lambda: bool(prometheus.query("service_ready == 1")),
            why=lambda: prometheus.ask("targets"),
        )
        assert prometheus.firing() == set()

        def fires(alert: str) -> None:
            wait_until(lambda: alert in prometheus.firing(), why=lambda: prometheus.ask("alerts"))

        for _ in range(3):
            server.predict(b"not an image")
            time.sleep(0.6)
        fires("UploadsRejected")
        server.process.terminate()
        fires("ServiceNotReady")
        server.process.wait(60)
        fires("ServiceDown")


def test_compose_profile_is_complete(compose: tuple[str, ...]) -> None:
    """The profile is valid: pinned images, ports on loopback only, and only files that exist."""
    config = run(*compose, "--profile", "monitoring", "config", "--services")
    assert {"service", "prometheus", "grafana"} <= set(config.split())
    text = (ROOT / "docker-compose.yml").read_text()
    assert all(
        re.search(r":v?\d+\.\d+\.\d+$", image) for image in re.findall(r"image: (\S+/\S+)", text)
    )
    ports = re.findall(r'- "(\S+:\d+)"', text)
    assert ports == [port for port in ports if port.startswith("127.0.0.1:")]
    mounts = re.findall(r"- (\./\S+?):", text)
    assert mounts == [mount for mount in mounts if (ROOT / mount).is_file()]
