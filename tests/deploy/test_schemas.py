"""The manifests against the schemas of Kubernetes' API and of the custom resources."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.deploy.manifests import CHART, Manifest, Rendered, read_inference_service
from tests.e2e.server import ROOT

jsonschema = pytest.importorskip("jsonschema", reason="kubernetes-validate is not installed")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

OLDEST = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"][2:6]
NEWEST = "1.37"
SCHEMAS: dict[str, Any] = yaml.safe_load((ROOT / "tests/deploy/custom_resources.yml").read_text())
# Fields of a predictor that are KServe's; all others are those of a PodSpec.
OF_KSERVE = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
# Image volumes came after the oldest version.
NEWER_THAN_OLDEST = {"image"}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_chart_fits_the_schemas(rendered: Rendered, version: str) -> None:
    """Every manifest has only fields of its API, with values that the API accepts."""
    for manifest in rendered.manifests:
        if manifest["kind"] in SCHEMAS:
            jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
        elif version == NEWEST or not uses_newer_volumes(manifest):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_inference_service_fits_the_schemas() -> None:
    """The predictor has only fields of KServe and of a pod."""
    manifest = read_inference_service()
    jsonschema.validate(manifest, SCHEMAS["InferenceService"])
    predictor = manifest["spec"]["predictor"]
    pod = {name: value for name, value in predictor.items() if name not in OF_KSERVE}
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": pod},
        NEWEST,
        strict=True,
    )


def uses_newer_volumes(manifest: Manifest) -> bool:
    """Tell whether a Deployment mounts a kind of volume that the oldest version lacks."""
    if manifest["kind"] != "Deployment":
        return False
    volumes = manifest["spec"]["template"]["spec"]["volumes"]
    return any(NEWER_THAN_OLDEST & volume.keys() for volume in volumes)
