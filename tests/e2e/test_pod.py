"""The image as Kubernetes runs it: any user, nothing writable, volumes with kubelet's links."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from service.api.keys import new_key
from tests.e2e.docker import Run
from tests.e2e.server import ROOT, free_port
from tests.service.images import fault

pytestmark = pytest.mark.timeout(900)  # the first build downloads every dependency

VALUES = yaml.safe_load((ROOT / "deploy/helm/fashion-classifier/values.yaml").read_text())
LIMITS = VALUES["resources"]["limits"]
ANY_USER = "1000660000:0"  # OpenShift gives each namespace users of its own
CONFINED = (
    *("--user", ANY_USER, "--read-only", "--tmpfs", "/tmp"),  # noqa: S108
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
    *("--memory", LIMITS["memory"].removesuffix("i"), "--cpus", LIMITS["cpu"]),
)


def fill_volume(volume: Path, stamp: str, source: Path) -> None:
    """Fill a volume as kubelet does: links to ``..data``, which is one link that is replaced."""
    shutil.copytree(source, volume / stamp)
    (volume / "..new").symlink_to(stamp)
    (volume / "..new").replace(volume / "..data")
    for path in source.iterdir():
        link = volume / path.name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / path.name)


@dataclass(frozen=True)
class Pod:
    """A running container, its volume of models and an API key."""

    docker: Run
    name: str
    url: str
    key: str
    models: Path

    def predict(self) -> httpx2.Response:
        """Upload an image of an ankle boot."""
        headers = {"X-API-Key": self.key}
        files = {"file": fault("photo.png")}
        return httpx2.post(f"{self.url}/predict", files=files, headers=headers, timeout=30)

    def count_answers(self) -> int:
        """Return how many uploads the log says were classified."""
        return self.docker("logs", self.name).count('"class_name"')

    def wait_for_version(self, version: str) -> None:
        """Wait until this version of the model answers."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = self.predict()
                if answer.status_code == 200 and answer.json()["model"]["version"] == version:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.25)
        pytest.fail(self.docker("logs", self.name))


@pytest.fixture
def pod(docker: Run, image: str, tmp_path: Path) -> Iterator[Pod]:
    """The service in a container with the chart's limits, keys and a volume of models."""
    key, line = new_key("alice")
    models, keys = tmp_path / "models", tmp_path / "keys"
    for volume in (models, keys, tmp_path / "secret"):
        volume.mkdir()
    (tmp_path / "secret" / "keys.txt").write_text(line)
    fill_volume(keys, "..1", tmp_path / "secret")
    fill_volume(models, "..1", ROOT / "models" / "resnet-8-tiny")
    port = free_port()
    name = f"fashion-classifier-pod-{port}"
    environment = VALUES["environment"] | {
        "SERVICE_MODELS": "/models",
        "SERVICE_API_KEYS_FILE": "/keys/keys.txt",
        "SERVICE_CHECK_INTERVAL_SECONDS": "0.5",
        "SERVICE_GRACE_SECONDS": str(VALUES["drain"]["graceSeconds"]),
    }
    variables = [f"--env={name}={value}" for name, value in environment.items()]
    volumes = [f"--volume={models}:/models:ro", f"--volume={keys}:/keys:ro"]
    publish = f"--publish=127.0.0.1:{port}:8000"
    docker("run", "--detach", "--name", name, *CONFINED, *variables, *volumes, publish, image)
    try:
        running = Pod(docker, name, f"http://127.0.0.1:{port}", key, models)
        running.wait_for_version("2")
        yield running
    finally:
        docker("rm", "--force", name)


def test_pod_swaps_its_model_and_stops_under_load(pod: Pod, tmp_path: Path) -> None:
    """A new model in the volume is swapped in, and SIGTERM under load loses no accepted request."""
    newer = tmp_path / "newer"
    shutil.copytree(ROOT / "models" / "resnet-8-tiny" / "2", newer / "3")
    manifest = json.loads((newer / "3" / "manifest.json").read_text())
    (newer / "3" / "manifest.json").write_text(json.dumps(manifest | {"version": "3"}))
    fill_volume(pod.models, "..2", newer)
    pod.wait_for_version("3")

    def load() -> list[httpx2.Response]:
        answers = []
        while True:
            try:
                answers.append(pod.predict())
            except httpx2.TransportError:  # the service no longer listens
                return answers

    before = pod.count_answers()
    with ThreadPoolExecutor(8) as threads:
        clients = [threads.submit(load) for _ in range(8)]
        time.sleep(1)
        pod.docker("stop", "--time", "40", pod.name)
        answers = [answer for client in clients for answer in client.result()]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) == pod.count_answers() - before > 8
    assert {a.json()["class_name"] for a in answers if a.status_code == 200} == {"Ankle boot"}
    state: dict[str, Any] = json.loads(pod.docker("inspect", pod.name))[0]["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
