"""The configurations of Ray Serve: what the service demands of them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.deploy.ray_serve import CONFIG, GPU_CONFIG, read_application
from tests.e2e.server import ROOT

Config = dict[str, Any]


@pytest.fixture(params=[CONFIG, GPU_CONFIG], ids=["cpu", "gpu"])
def config(request: pytest.FixtureRequest) -> Config:
    """A configuration of Ray Serve."""
    return dict(yaml.safe_load(request.param.read_text()))


@pytest.fixture
def application(config: Config) -> Config:
    """The configuration's application."""
    return read_application(yaml.safe_dump(config))


@pytest.fixture
def deployment(application: Config) -> Config:
    """The application's only deployment."""
    (deployment,) = application["deployments"]
    return dict(deployment)


@pytest.fixture
def settings(application: Config, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a replica; each variable is a setting."""
    variables = application["runtime_env"]["env_vars"]
    assert variables.keys() <= {f"SERVICE_{name.upper()}" for name in Settings.model_fields}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_application_exists(application: Config, deployment: Config) -> None:
    """The configuration names the module, its variable and its class."""
    module, _, variable = application["import_path"].partition(":")
    code = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    assert f"\n{variable} = deployment.bind()" in code
    assert f"serve.deployment({deployment['name']})" in code


def test_threads_are_the_cores_of_a_replica(deployment: Config, settings: Settings) -> None:
    """A replica has one thread for each of its cores, not for each core of the machine."""
    assert settings.threads == deployment["ray_actor_options"]["num_cpus"]


def test_gpu_replica_asks_for_a_gpu(deployment: Config, settings: Settings) -> None:
    """A replica gets a part of a GPU if, and only if, the service needs one."""
    asks = deployment["ray_actor_options"].get("num_gpus", 0) > 0
    assert asks == (settings.device == "cuda")


def test_ray_waits_longer_than_the_service(
    config: Config, deployment: Config, settings: Settings
) -> None:
    """Ray ends a request, and a replica that drains, later than the service itself."""
    own = max(
        settings.request_timeout_seconds,
        settings.grace_seconds + settings.shutdown_timeout_seconds,
    )
    assert config["http_options"]["request_timeout_s"] > own
    assert deployment["graceful_shutdown_timeout_s"] > own


def test_ray_rejects_before_the_service(deployment: Config, settings: Settings) -> None:
    """Ray gives a replica no more requests than it accepts, and adds replicas before that."""
    limit = deployment["max_ongoing_requests"]
    assert limit <= settings.max_uploads_in_flight
    assert deployment["autoscaling_config"]["target_ongoing_requests"] < limit
