"""The application on a real Ray Serve of one core, under load."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest

from tests import golden
from tests.deploy.ray_serve import (
    CONFIG,
    GPU_CONFIG,
    Options,
    RayServe,
    ray_serve,
    read_options,
)
from tests.e2e.server import wait_until
from tests.service.images import encode, fault

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.timeout(900),
]

IMAGE = encode(golden.images()[0])
CLIENTS = 6
# What Ray may answer instead of the service: 503 for a full queue, 500 for a replica that died.
ALLOWED = {"right", "500", "503"}


def options(model: str = "models/resnet-8") -> Options:
    """Return the options of serve.yaml with short windows, for replicas that share one core."""
    changed = read_options(SERVICE_MODELS=model)
    changed["ray_actor_options"]["num_cpus"] = 0.25
    changed["autoscaling_config"] |= {
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 1,
        "downscale_delay_s": 3,
        "metrics_interval_s": 1,
        "look_back_period_s": 2,
    }
    changed["health_check_period_s"] = 1
    return changed


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayServe]:
    """Ray Serve with the application."""
    with ray_serve() as running:
        running.deploy(options())
        yield running


class Load:
    """The outcomes of requests that clients send one after the other."""

    def __init__(self, url: str, expected: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.models: list[str] = []
        self._url = url
        self.expected = expected
        self._stop = Event()

    @contextmanager
    def running(self, clients: int) -> Iterator[None]:
        """Run ``clients`` clients during the block."""
        threads = [Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        with httpx2.Client(timeout=120) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(f"{self._url}/predict", content=IMAGE)
                except httpx2.TransportError as error:
                    self.outcomes[type(error).__name__] += 1
                    continue
                self._count(answer)

    def _count(self, answer: httpx2.Response) -> None:
        if answer.status_code != 200:
            self.outcomes[str(answer.status_code)] += 1
            return
        body = answer.json()
        self.outcomes["right" if body["class_name"] == self.expected else "wrong"] += 1
        self.models.append(body["model"]["name"])


@pytest.fixture
def load(cluster: RayServe) -> Load:
    """Load on the application."""
    body = httpx2.post(f"{cluster.url}/predict", content=IMAGE, timeout=120).json()
    return Load(cluster.url, body["class_name"])


@pytest.mark.parametrize("config", [CONFIG, GPU_CONFIG], ids=["cpu", "gpu"])
def test_configuration_is_valid(config: Path) -> None:
    """Ray accepts the configuration."""
    code = (
        "import sys, yaml; from ray.serve.schema import ServeDeploySchema; "
        "ServeDeploySchema.model_validate(yaml.safe_load(open(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", code, str(config)], check=True)


def test_answers_are_those_of_the_service(cluster: RayServe) -> None:
    """Answers, errors and headers of the application come through Ray's proxy."""
    with httpx2.Client(base_url=cluster.url, timeout=120) as client:
        answer = client.post("/predict", files={"file": IMAGE}, headers={"X-Request-ID": "mine"})
        assert answer.json()["model"]["name"] == "resnet-8"
        # Ray's proxy adds the header a second time.
        assert set(answer.headers.get_list("X-Request-ID")) == {"mine"}
        assert "inference" in answer.headers["Server-Timing"]
        problem = client.post("/predict", content=fault("truncated.jpg"))
        assert problem.status_code == 422
        assert problem.headers["content-type"] == "application/problem+json"
        assert client.get("/health").json()["status"] == "ready"
        assert "service_requests_total" in client.get("/metrics").text


def test_replicas_follow_the_load(cluster: RayServe, load: Load) -> None:
    """Ray adds a replica under load and removes it after, and no request is lost."""
    with load.running(CLIENTS):
        wait_until(lambda: len(cluster.find_replicas()) == 2, 240)
    quiet = Load(cluster.url, load.expected)
    with quiet.running(1):
        wait_until(lambda: len(cluster.find_replicas()) == 1, 240)
    print(dict(load.outcomes), dict(quiet.outcomes))
    assert load.outcomes["right"]
    assert load.outcomes.keys() == quiet.outcomes.keys() == {"right"}


def test_killed_replica_is_replaced(cluster: RayServe, load: Load) -> None:
    """While a replica dies, requests are answered right or with 500 or 503; then all are right."""
    with load.running(CLIENTS):
        wait_until(lambda: load.outcomes["right"] > 20, 240)
        killed = cluster.find_replicas()[0]
        killed.kill()
        wait_until(lambda: bool({each.pid for each in cluster.find_replicas()} - {killed.pid}), 240)
        answered = load.outcomes["right"]
        wait_until(lambda: load.outcomes["right"] > answered + 20, 240)
    print(dict(load.outcomes))
    assert load.outcomes.keys() <= ALLOWED
    assert load.outcomes["right"] > 40


def test_upgrade_loses_nothing(cluster: RayServe, load: Load) -> None:
    """During a rolling upgrade to another model each request is answered right."""
    with load.running(CLIENTS):
        wait_until(lambda: load.outcomes["right"] > 20, 240)
        cluster.deploy(options("models/resnet-8-tiny"))
        wait_until(lambda: load.models[-1] == "resnet-8-tiny", 240)
    print(dict(load.outcomes), dict(Counter(load.models)))
    assert set(load.models) == {"resnet-8", "resnet-8-tiny"}
    assert load.outcomes.keys() == {"right"}
