"""Kubernetes manifests for tests: rendered by Helm, or read from a file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.e2e.server import ROOT

CHART = ROOT / "deploy/helm/fashion-classifier"
KSERVE = ROOT / "deploy/kserve/inference-service.yaml"

Manifest = dict[str, Any]

KEY_LINE = f"alice:{'0' * 64}"
# Values that switch on each part of the chart, most of them together.
VALUES: dict[str, Manifest] = {
    "defaults": {},
    "gpu": yaml.safe_load((CHART / "values-gpu.yaml").read_text()),
    "public": {
        "image": {"pullSecrets": [{"name": "registry"}]},
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["fashion.example.org"],
            "tls": [{"secretName": "fashion-tls", "hosts": ["fashion.example.org"]}],
        },
        "apiKeys": {"lines": [KEY_LINE]},
        "autoscaling": {"enabled": True},
        "networkPolicy": {
            "enabled": True,
            "from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}],
            "egress": [
                {"ports": [{"port": 4318, "protocol": "TCP"}]},
                {"ports": [{"port": 53, "protocol": name} for name in ("UDP", "TCP")]},
            ],
        },
        "environment": {
            "FORWARDED_ALLOW_IPS": "10.0.0.0/8",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        },
    },
    "monitored": {
        "keda": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "serviceMonitor": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "keySecret": {"name": "prometheus-key", "key": "key"},
        },
        "apiKeys": {"existingSecret": "keys"},
    },
    "models from a volume": {
        "models": {
            "folders": ["/models/garments", "/models/resnet-8"],
            "volume": {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        },
    },
    "models from an image": {
        "models": {
            "folders": ["/models"],
            "volume": {"image": {"reference": "registry.example.org/garments:3"}},
        },
    },
    "models from an init container": {
        "models": {
            "folders": ["/models/garments"],
            "initContainer": {
                "image": "amazon/aws-cli",
                "args": ["s3", "sync", "s3://bucket", "/models"],
                "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108
            },
        },
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn"}},
    },
    "other platform": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "podAnnotations": {"team": "shop"},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "runtimeClassName": "gvisor",
        "service": {"type": "LoadBalancer", "port": 8080},
        "podDisruptionBudget": {"enabled": False},
    },
    "drains at once": {
        "drain": {"preStopSeconds": 0, "graceSeconds": 0, "shutdownTimeoutSeconds": 1}
    },
    "drains slowly": {
        "drain": {"preStopSeconds": 30, "graceSeconds": 5, "shutdownTimeoutSeconds": 300}
    },
}


@dataclass(frozen=True)
class Rendered:
    """The manifests of one application."""

    manifests: list[Manifest]

    def find_all(self, kind: str) -> list[Manifest]:
        """Return the manifests of a kind."""
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def find(self, kind: str) -> Manifest:
        """Return the only manifest of a kind."""
        (manifest,) = self.find_all(kind)
        return manifest

    @property
    def pod(self) -> Manifest:
        """The specification of the service's pods."""
        return dict(self.find("Deployment")["spec"]["template"]["spec"])

    @property
    def container(self) -> Manifest:
        """The service's container."""
        return dict(self.pod["containers"][0])

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the service's container."""
        return dict(self.find("ConfigMap")["data"])


def helm(command: str, values: Manifest, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Helm on the chart with ``values``."""
    return subprocess.run(
        ["helm", *command.split(), str(CHART), "--values", "-", *arguments],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=False,
    )


def render(values: Manifest) -> Rendered:
    """Render the chart with ``values`` for the release "shop" in the namespace "fashion"."""
    result = helm("template shop", values, "--namespace", "fashion")
    assert result.returncode == 0, result.stderr
    return Rendered([each for each in yaml.safe_load_all(result.stdout) if each])


def read_inference_service() -> Manifest:
    """Read the InferenceService of KServe."""
    return dict(yaml.safe_load(KSERVE.read_text()))


def find_probe_paths(container: Manifest) -> Iterator[str]:
    """Yield the paths that the probes of a container ask."""
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        yield container[name]["httpGet"]["path"]
