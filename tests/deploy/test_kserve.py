"""The InferenceService of KServe: what Kubernetes and the service demand of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import Settings
from tests.deploy.manifests import (
    KSERVE,
    VALUES,
    Manifest,
    find_probe_paths,
    read_inference_service,
    render,
)
from tests.deploy.routes import is_route
from tests.e2e.server import ROOT

# What KServe reads itself: its storage initializer downloads this folder.
OTHER_VARIABLES = {"STORAGE_URI"}


@pytest.fixture(scope="module")
def predictor() -> Manifest:
    """Specification of the predictor's pods."""
    return dict(read_inference_service()["spec"]["predictor"])


def test_paths_are_routes(predictor: Manifest) -> None:
    """Each path that a probe asks, or that the file names for clients, is a route."""
    assert all(is_route("GET", path) for path in find_probe_paths(predictor["containers"][0]))
    (path,) = re.findall(r"POST (/\S+infer)", KSERVE.read_text())
    assert is_route("POST", path)
    assert path == f"/v2/models/{read_inference_service()['metadata']['name']}/infer"


def test_named_model_is_served_by_default() -> None:
    """The InferenceService has the name of a model that the image serves."""
    name = read_inference_service()["metadata"]["name"]
    assert name in {folder.name for folder in Settings().models}


def test_environment_is_valid(predictor: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable, commented ones too, is a setting or KServe's; the service accepts them."""
    names = {f"SERVICE_{name.upper()}" for name in Settings.model_fields}
    named = dict(re.findall(r'\{name: (\w+), value: "?([^"}]+)"?\}', KSERVE.read_text()))
    assert named.keys() <= names | OTHER_VARIABLES
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    # KServe's storage initializer always writes here.
    assert settings.models == (Path("/mnt/models"),)
    assert settings.port == predictor["containers"][0]["ports"][0]["containerPort"]


def test_pod_may_stop_in_peace(predictor: Manifest) -> None:
    """Kubernetes kills a pod only after its preStop action and its drain, with time to spare."""
    settings = Settings()
    stop_seconds = predictor["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    stop_seconds += settings.grace_seconds + settings.shutdown_timeout_seconds
    assert predictor["terminationGracePeriodSeconds"] - stop_seconds >= 5


@pytest.mark.usefixtures("helm_program")
def test_pod_is_that_of_the_chart(predictor: Manifest) -> None:
    """Image, resources, confinement and the periods of the probes are those of the chart."""
    chart = render(VALUES["defaults"])
    ours, theirs = predictor["containers"][0], chart.container
    for name in ("image", "resources", "securityContext", "volumeMounts", "lifecycle"):
        assert ours[name] == theirs[name]
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert {**ours[name], "httpGet": None} == {**theirs[name], "httpGet": None}
    for name in ("securityContext", "volumes", "enableServiceLinks"):
        assert predictor[name] == chart.pod[name]


def test_image_is_that_of_compose() -> None:
    """The image is the one that Compose builds."""
    (container,) = read_inference_service()["spec"]["predictor"]["containers"]
    assert f":-{container['image']}}}" in (ROOT / "docker-compose.yml").read_text()
