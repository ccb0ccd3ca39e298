"""The Helm chart: what Kubernetes, the service and Helm demand of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from service.machine.sizing import CUDA_BYTES, IDLE_BYTES, largest_image_bytes
from service.settings import Settings
from tests.deploy.manifests import VALUES, Manifest, Rendered, find_probe_paths, helm, render
from tests.deploy.routes import is_route, read_metrics
from tests.e2e.server import ROOT

pytestmark = pytest.mark.usefixtures("helm_program")

# Variables of tracing and uvicorn, which the settings do not hold (docs/settings.md).
OTHER_VARIABLES = {"FORWARDED_ALLOW_IPS", "OTEL_EXPORTER_OTLP_ENDPOINT"}
BYTES = {"Mi": 2**20, "Gi": 2**30}


@pytest.mark.parametrize("values", VALUES)
def test_lint_finds_nothing(values: str) -> None:
    """Helm's linter has no error and no warning, whatever is switched on."""
    result = helm("lint --strict", VALUES[values])
    assert result.returncode == 0, result.stdout
    assert "WARNING" not in result.stdout


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replica": 3}, "replica"),
        ({"replicas": "3"}, "replicas"),
        ({"environment": {"SERVICE_PORT": "80"}}, "SERVICE_PORT"),
        ({"environment": {"SERVICE_THREADS": 2}}, "SERVICE_THREADS"),
        ({"apiKeys": {"lines": ["a plain key"]}}, "lines"),
        (
            {
                "autoscaling": {"enabled": True},
                "keda": {"enabled": True},
                "serviceMonitor": {"enabled": True},
            },
            "set one of them",
        ),
        ({"keda": {"enabled": True}}, "keda.enabled needs serviceMonitor.enabled"),
        ({"models": {"volume": {"emptyDir": {}}}}, "models.folders is empty"),
        (
            {
                "models": {
                    "folders": ["/models"],
                    "volume": {"emptyDir": {}},
                    "initContainer": {"image": "x"},
                }
            },
            "set one of them",
        ),
        ({"models": {"folders": ["/models"], "initContainer": {"name": "x"}}}, "initContainer"),
        ({"apiKeys": {"lines": ["a:" + 64 * "0"], "existingSecret": "keys"}}, "set one of them"),
        ({"ingress": {"enabled": True}}, "ingress.hosts is empty"),
    ],
)
def test_wrong_values_are_rejected(values: Manifest, message: str) -> None:
    """Helm rejects misspelt and contradicting values, and names them."""
    result = helm("template shop", values)
    assert result.returncode != 0
    assert message in result.stderr


def test_each_resource_is_rendered() -> None:
    """The values of the tests render each resource of the chart at least once."""
    kinds = {each["kind"] for values in VALUES.values() for each in render(values).manifests}
    assert kinds == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ScaledObject",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    }


def test_names_refer_to_what_is_rendered(rendered: Rendered) -> None:
    """Names, ports and labels that one manifest takes from another exist there."""
    pod, container = rendered.pod, rendered.container
    (name,) = {each["metadata"]["name"] for each in rendered.manifests}
    assert pod["serviceAccountName"] == name
    assert container["envFrom"] == [{"configMapRef": {"name": name}}]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in rendered.find("Service")["spec"]["ports"]} <= ports
    assert {container[probe]["httpGet"]["port"] for probe in container if "Probe" in probe} <= ports
    volumes = {volume["name"] for volume in pod["volumes"]}
    containers = [container, *pod.get("initContainers", [])]
    mounts = {mount["name"] for each in containers for mount in each["volumeMounts"]}
    assert mounts == volumes
    labels = rendered.find("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert all(selector.items() <= labels.items() for selector in find_selectors(rendered))


def test_environment_is_valid(rendered: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is a setting, and the service accepts all values together."""
    names = {f"SERVICE_{name.upper()}" for name in Settings.model_fields}
    assert rendered.environment.keys() <= names | OTHER_VARIABLES
    for name, value in rendered.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.port == rendered.container["ports"][0]["containerPort"]
    mounts = [mount["mountPath"] for mount in rendered.container["volumeMounts"]]
    if settings.api_keys_file:
        assert str(settings.api_keys_file.parent) in mounts
    if "SERVICE_MODELS" in rendered.environment:
        assert all(f"/{folder.parts[1]}" in mounts for folder in settings.models)


def test_paths_are_routes(rendered: Rendered) -> None:
    """Each path that Kubernetes or Prometheus asks is a route of the service."""
    paths = [*find_probe_paths(rendered.container)]
    for monitor in rendered.find_all("ServiceMonitor"):
        paths += [endpoint["path"] for endpoint in monitor["spec"]["endpoints"]]
    assert [path for path in paths if not is_route("GET", path)] == []


def test_pod_may_stop_in_peace(rendered: Rendered) -> None:
    """Kubernetes kills a pod only after its preStop action and its drain, with time to spare."""
    environment = rendered.environment
    drain_seconds = float(environment["SERVICE_GRACE_SECONDS"])
    drain_seconds += int(environment["SERVICE_SHUTDOWN_TIMEOUT_SECONDS"])
    stop = rendered.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    left = rendered.pod["terminationGracePeriodSeconds"] - stop.get("seconds", 0) - drain_seconds
    assert left >= 5


def test_probes_fit_the_start(rendered: Rendered) -> None:
    """A pod has at least as long to start as the image's own health check allows."""
    start = re.search(r"--start-period=(\d+)s", (ROOT / "docker/Dockerfile").read_text())
    assert start is not None
    probe = rendered.container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= int(start[1])


def test_pod_is_confined(rendered: Rendered) -> None:
    """No container runs as root, writes to its image, or gains rights or Kubernetes' token."""
    pod = rendered.pod
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_memory_is_enough_for_all_workers(rendered: Rendered) -> None:
    """The memory limit holds a worker for each core, its largest image and its uploads."""
    limits = rendered.container["resources"]["limits"]
    settings = Settings()
    idle = CUDA_BYTES if rendered.environment["SERVICE_DEVICE"] == "cuda" else IDLE_BYTES
    worker = idle + settings.max_bytes_in_flight + largest_image_bytes(settings)
    needed = int(limits["cpu"]) * worker
    assert needed < int(limits["memory"][:-2]) * BYTES[limits["memory"][-2:]]


def test_autoscaler_owns_the_number_of_pods(rendered: Rendered) -> None:
    """With an autoscaler, the Deployment names no number: an upgrade would reset the number."""
    scalers = rendered.find_all("HorizontalPodAutoscaler") + rendered.find_all("ScaledObject")
    assert ("replicas" in rendered.find("Deployment")["spec"]) == (not scalers)
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"]["name"] == "shop-fashion-classifier"


def test_monitoring_names_real_metrics_and_jobs() -> None:
    """KEDA's query names a metric of the service; the monitor's job is that of the alerts."""
    rendered = render(VALUES["monitored"])
    query = rendered.find("ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    assert set(re.findall(r"service_\w+", query)) <= set(re.findall(r"^\w+", read_metrics(), re.M))
    label = rendered.find("ServiceMonitor")["spec"]["jobLabel"]
    job = rendered.find("Service")["metadata"]["labels"][label]
    assert f'job="{job}"' in (ROOT / "docker/monitoring/alerts.yml").read_text()


def test_ingress_accepts_what_the_service_accepts() -> None:
    """The ingress passes on uploads of the largest size that the service accepts."""
    annotations = render(VALUES["public"]).find("Ingress")["metadata"]["annotations"]
    limit = annotations["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(limit.removesuffix("m")) * 2**20 >= Settings().max_upload_bytes


def test_changed_variables_start_new_pods() -> None:
    """The pods' template changes with a variable, so that Kubernetes replaces the pods."""
    first, second = (
        render({"environment": {"SERVICE_LOG_LEVEL": level}}).find("Deployment")
        for level in ("info", "debug")
    )
    assert first["spec"]["template"] != second["spec"]["template"]


def test_gpu_values_take_the_image_of_compose() -> None:
    """The GPU's values name the image that Compose builds for GPUs, and demand one GPU."""
    container = render(VALUES["gpu"]).container
    compose = yaml.safe_load((ROOT / "docker/compose.gpu.yml").read_text())
    assert container["image"] in compose["services"]["service"]["image"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def find_selectors(rendered: Rendered) -> list[dict[str, Any]]:
    """Return the labels by which other manifests select the pods."""
    matching = ("Deployment", "PodDisruptionBudget", "ServiceMonitor")
    specs = [each["spec"] for kind in matching for each in rendered.find_all(kind)]
    selectors = [spec["selector"]["matchLabels"] for spec in specs]
    selectors += [
        each["spec"]["podSelector"]["matchLabels"] for each in rendered.find_all("NetworkPolicy")
    ]
    return [*selectors, rendered.find("Service")["spec"]["selector"]]
