"""GET /health and the paths below it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.errors import BundleError, DeviceError
from service.inference.classifier import Classifier
from service.settings import Settings
from tests.service.bundles import linear_model, write_linear_bundle
from tests.service.images import encode, noise


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_ready_service_says_what_it_runs_on(linear: TestClient, path: str) -> None:
    """A ready service answers 200 with its model and its session's providers."""
    response = linear.get(path)
    assert response.status_code == 200
    body = response.json()
    assert body.pop("uptime_seconds") >= 0
    assert body == {
        "status": "ready",
        "model": {"name": "linear", "version": "1"},
        "device": "cpu",
        "providers": ["CPUExecutionProvider"],
    }


def test_service_that_has_not_loaded_is_alive_but_not_ready(linear_folder: Path) -> None:
    """Until the model is loaded, /health and /predict answer 503, and /health/live 200."""

    async def ask() -> tuple[httpx2.Response, httpx2.Response, httpx2.Response]:
        # This transport does not start the application, so the model is never loaded.
        transport = httpx2.ASGITransport(create_app(Settings(model=linear_folder)))
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
            upload = client.post("/predict", files={"file": encode(noise(20, 30))})
            return await client.get("/health"), await client.get("/health/live"), await upload

    health, live, upload = asyncio.run(ask())
    assert health.status_code == 503
    assert health.json()["status"] == "starting"
    assert health.json()["model"] is None
    assert health.json()["device"] is None
    assert live.status_code == 200
    assert live.json() == {"status": "alive"}
    assert upload.status_code == 503
    assert upload.json()["type"].endswith(":not-ready")
    assert int(upload.headers["retry-after"]) >= 1


@pytest.mark.parametrize("damage", ["missing", "preprocessing"])
def test_service_without_a_model_says_failed_and_stops(tmp_path: Path, damage: str) -> None:
    """If no bundle can be served, /health says `failed` and the server is asked to stop."""
    folder = tmp_path / "linear"
    if damage == "preprocessing":
        write_linear_bundle(folder, preprocessing="another")
    stops: list[str] = []
    with TestClient(
        create_app(Settings(model=folder), on_failure=lambda: stops.append("stop"))
    ) as client:
        while client.get("/health").json()["status"] == "starting":
            pass
        assert client.get("/health").status_code == 503
        assert client.get("/health").json()["status"] == "failed"
    assert stops == ["stop"]


def test_cuda_is_an_error_without_a_gpu(linear_folder: Path) -> None:
    """With device `cuda` there is no fallback to the CPU: without a GPU it is an error."""
    from service.bundle import read_bundle

    bundle = read_bundle(linear_folder)
    automatic = Classifier(bundle, "auto")
    assert automatic.device == ("cuda" if "CUDAExecutionProvider" in automatic.providers else "cpu")
    if automatic.device == "cuda":
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="SERVICE_DEVICE"):
        Classifier(bundle, "cuda")


@pytest.mark.parametrize(
    ("model", "manifest", "message"),
    [
        (b"no onnx", {}, "cannot load"),
        (linear_model(4, 20, 30), {}, "3 classes"),
        (linear_model(3, 21, 30), {}, r"21, 30.*20, 30"),
        (linear_model(3, 20, 30, input_name="picture"), {}, "picture"),
        (None, {"class_names": ("one", "two"), "self_test": (0.5, 0.5)}, "2 classes"),
    ],
)
def test_model_that_contradicts_its_manifest_is_rejected(
    tmp_path: Path, model: bytes | None, manifest: dict[str, object], message: str
) -> None:
    """A model whose input, size or number of classes differs from its manifest is rejected."""
    bundle = write_linear_bundle(tmp_path / "linear", model=model, **manifest)
    with pytest.raises(BundleError, match=message):
        Classifier(bundle, "cpu")
