"""The paths below /v2: metadata, health, names, and errors in the form of the protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api.keys import new_key
from service.api.problems import TABLE, internal_error, problem_response
from service.app import create_app
from service.errors import OverloadedError, QuotaExceededError
from service.settings import Settings
from tests.service.api.v2.wire import assert_error, infer, tensor
from tests.service.conftest import wait_until_ready
from tests.service.images import noise

IMAGES = noise(20, 30)[np.newaxis]
REQUEST = {"inputs": [tensor(IMAGES)]}
INFER = "/v2/models/linear/infer"


def test_server_describes_itself(linear: TestClient) -> None:
    """The server's metadata names the extension for binary tensors."""
    body = linear.get("/v2").json()
    assert body.keys() == {"name", "version", "extensions"}
    assert body["extensions"] == ["binary_tensor_data"]


def test_healthy_service_is_live_and_ready(linear: TestClient) -> None:
    """A service whose models are loaded is live and ready, and so is each model."""
    assert linear.get("/v2/health/live").json() == {"live": True}
    assert linear.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/linear", "/v2/models/linear/versions/1"):
        assert linear.get(f"{path}/ready").json() == {"name": "linear", "ready": True}


def test_service_without_a_model_is_live_but_not_ready(linear_folder: Path) -> None:
    """Before its models are loaded, a service answers 503 with an error, except for liveness."""
    client = TestClient(create_app(Settings(models=(linear_folder,), device="cpu")))
    assert client.get("/v2/health/live").status_code == 200
    name = linear_folder.parent.name
    for path in ("/v2/health/ready", f"/v2/models/{name}", f"/v2/models/{name}/ready"):
        assert_error(client.get(path), 503, "is starting")
        assert client.get(path).headers["retry-after"] == "1"
    assert_error(infer(client, name, REQUEST), 503, "is starting")


def test_model_describes_its_tensors(linear: TestClient, colours: TestClient) -> None:
    """The metadata lists the input and each output with type and shape, as the model has them."""
    grey = linear.get("/v2/models/linear/versions/1").json()
    assert (grey["name"], grey["versions"]) == ("linear", ["1"])
    assert grey["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 20, 30]}]
    assert [output["name"] for output in grey["outputs"]] == [
        "probabilities",
        "class_id",
        "class_name",
    ]
    photo = colours.get("/v2/models/colours").json()
    assert photo["inputs"][0]["shape"] == [-1, 24, 32, 3]
    assert {each["name"]: (each["datatype"], each["shape"]) for each in photo["outputs"]} == {
        "probabilities": ("FP32", [-1, 3]),
        "class_id": ("INT64", [-1]),
        "class_name": ("BYTES", [-1]),
        "distance": ("FP32", [-1]),
        "in_distribution": ("BOOL", [-1]),
        "activations": ("FP32", [-1, 3, -1, -1]),
    }


@pytest.mark.parametrize("path", ["other", "other/versions/1", "linear/versions/2"])
def test_unknown_name_or_version_is_not_found(linear: TestClient, path: str) -> None:
    """A model or version that is not served gets 404, on every path."""
    for response in (
        linear.get(f"/v2/models/{path}"),
        linear.get(f"/v2/models/{path}/ready"),
        infer(linear, path, REQUEST),
    ):
        assert_error(response, 404, "is not served")


def test_framework_errors_have_the_form_of_the_protocol(linear: TestClient) -> None:
    """Unknown paths and methods below /v2 get its form of an error; other paths get a problem."""
    assert_error(linear.get("/v2/nowhere"), 404)
    assert_error(linear.get(INFER), 405)
    assert linear.get(INFER).headers["allow"] == "POST"
    assert linear.get("/v2nowhere").headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("kind", TABLE)
def test_every_error_of_the_service_keeps_status_and_headers(kind: type[Exception]) -> None:
    """Below /v2, an error of the service has its usual status, its headers and its own text."""
    retried = kind in (OverloadedError, QuotaExceededError)
    error = kind("reason", 7) if retried else kind("reason")
    state = {"request_id": "id-1"}
    problem = problem_response({"path": "/predict", "state": state}, error)  # type: ignore[arg-type]
    response = problem_response({"path": INFER, "state": state}, error)  # type: ignore[arg-type]
    assert response.body == b'{"error":"reason"}'
    assert response.status_code == problem.status_code
    for name in ("retry-after", "www-authenticate"):
        assert response.headers.get(name) == problem.headers.get(name)
    assert internal_error({"path": INFER, "state": state}).body.startswith(b'{"error":')  # type: ignore[union-attr]


def test_keys_and_rate_limit_apply(linear_folder: Path, tmp_path: Path) -> None:
    """Only the health paths need no key; requests count against the rate limit of uploads."""
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    settings = Settings(
        models=(linear_folder,),
        device="cpu",
        api_keys_file=tmp_path / "keys",
        rate_limit_per_minute=1,
    )
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        assert client.get("/v2/health/ready").status_code == 200
        for path in ("/v2", "/v2/models/linear", "/v2/models/linear/ready"):
            assert_error(client.get(path), 401, "no API key")
        assert_error(infer(client, "linear", REQUEST), 401)
        client.headers["X-API-Key"] = key
        assert infer(client, "linear", REQUEST).status_code == 200
        assert_error(infer(client, "linear", REQUEST), 429, "0 of 1 images per minute")


def test_limits_apply(linear: TestClient) -> None:
    """Too many bytes, too many pixels and a compressed body get the status of /predict."""
    assert_error(linear.post(INFER, content=bytes(1_000_001)), 413, "1000001 bytes")
    compressed = linear.post(INFER, content=b"{}", headers={"Content-Encoding": "gzip"})
    assert_error(compressed, 415, "'gzip'")
    assert_error(linear.post(INFER, content=b"{}", params={"top_k": 1}), 400, "query parameters")
