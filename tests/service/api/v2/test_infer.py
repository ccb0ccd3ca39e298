"""POST /v2/models/NAME/infer: the same answers as /predict, in JSON and as binary data."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests import golden
from tests.service.api.test_predict import post
from tests.service.api.v2.wire import (
    JSON_LENGTH,
    assert_error,
    binary_tensor,
    files,
    infer,
    join,
    outputs,
    tensor,
)
from tests.service.conftest import wait_until_ready
from tests.service.images import encode, fault, noise

PIXELS = np.stack([noise(20, 30, seed) for seed in range(40)])  # more than one batch of a model
PHOTOS = [encode(Image.new("RGB", (64, 48), name)) for name in ("blue", "red", "green")]
ALL = ["probabilities", "class_id", "class_name", "distance", "in_distribution", "activations"]


def in_base64(uploads: list[bytes]) -> list[str]:
    """Encode files for the JSON."""
    return [base64.b64encode(upload).decode() for upload in uploads]


def assert_as_predicted(answer: dict[str, Any], predicted: list[dict[str, Any]]) -> None:
    """Check that the outputs are bit for bit the answers of /predict."""
    for name in answer.keys() - {"activations"}:
        expected = [each[name] for each in predicted]
        if name == "probabilities":
            expected = [list(each.values()) for each in expected]
        found = answer[name] if name == "class_name" else answer[name].tolist()
        assert found == expected, name


@pytest.mark.parametrize("is_binary_output", [True, False])
@pytest.mark.parametrize("way", ["flat", "nested", "binary"])
def test_tensor_gets_the_answers_of_predict(
    linear: TestClient, way: str, is_binary_output: bool
) -> None:
    """A tensor gets the answers that /predict gives to its images, whichever way it is sent."""
    inputs = {
        "flat": tensor(PIXELS, data=PIXELS.ravel().tolist()),
        "nested": tensor(PIXELS),
        "binary": binary_tensor(PIXELS),
    }
    request = {"inputs": [inputs[way]], "parameters": {"binary_data_output": is_binary_output}}
    response = infer(linear, "linear", request, PIXELS.tobytes() if way == "binary" else b"")
    predicted = [post(linear, encode(image)).json() for image in PIXELS]
    answer = outputs(response)
    assert answer.keys() == {"probabilities", "class_id", "class_name"}
    assert_as_predicted(answer, predicted)


@pytest.mark.parametrize("shape", [[3], [3, 1]])
@pytest.mark.parametrize("is_binary", [True, False])
def test_files_get_the_answers_of_predict(
    colours: TestClient, is_binary: bool, shape: list[int]
) -> None:
    """Encoded files get the answers of /predict, with every output of the model."""
    described = files(in_base64(PHOTOS), shape=shape)
    binary = join(PHOTOS) if is_binary else b""
    if is_binary:
        del described["data"]
        described["parameters"] = {"binary_data_size": len(binary)}
    answer = outputs(infer(colours, "colours", {"inputs": [described]}, binary))
    assert list(answer) == ALL
    assert_as_predicted(answer, [post(colours, photo).json() for photo in PHOTOS])
    assert answer["activations"].shape == (3, 3, 3, 4)


@pytest.mark.parametrize("model", ["resnet-8", "garments"])
def test_shipped_models_answer_as_predict(shipped: TestClient, model: str) -> None:
    """The shipped models give bit for bit the same answers as /predict, for pixels and files."""
    uploads = [encode(image) for image in golden.images()[:3]] + [fault("exif-rotated.jpg")]
    for upload in uploads:
        request = {"inputs": [files(in_base64([upload]))]}
        predicted = [post(shipped, upload, model=model).json()]
        assert_as_predicted(outputs(infer(shipped, model, request)), predicted)


def test_only_the_requested_outputs_are_sent(colours: TestClient) -> None:
    """The answer has the requested outputs in their order; each can be JSON or binary data."""
    request = {
        "parameters": {"binary_data_output": True},
        "inputs": [files(in_base64(PHOTOS))],
        "outputs": [
            {"name": "class_name", "parameters": {"binary_data": False}},
            {"name": "distance"},
            {"name": "class_id", "parameters": {"binary_data": True}},
        ],
    }
    response = infer(colours, "colours", request)
    assert list(outputs(response)) == ["class_name", "distance", "class_id"]
    assert response.headers["content-type"] == "application/octet-stream"
    assert (
        b'"data":["blue","red","green"]' in response.content[: int(response.headers[JSON_LENGTH])]
    )
    request = {"inputs": [files(in_base64(PHOTOS))], "outputs": [{"name": "class_id"}]}
    response = infer(colours, "colours", request)
    assert response.headers["content-type"] == "application/json"
    assert JSON_LENGTH not in response.headers
    assert list(outputs(response)) == ["class_id"]


def test_answer_names_the_model_and_echoes_the_id(linear: TestClient) -> None:
    """The answer has the id of the request, if there is one, and the model's name and version."""
    request: dict[str, Any] = {"inputs": [tensor(PIXELS[:1])]}
    body = infer(linear, "linear", request).json()
    assert (body["model_name"], body["model_version"]) == ("linear", "1")
    assert "id" not in body
    assert infer(linear, "linear", request | {"id": "é 7"}).json()["id"] == "é 7"
    named = request | {"model_name": "linear", "model_version": "1"}
    assert infer(linear, "linear/versions/1", named).status_code == 200
    assert_error(infer(linear, "linear", request | {"model_name": "other"}), 400, "'other'")
    assert_error(infer(linear, "linear", request | {"model_version": "2"}), 400, "'2'")


@pytest.mark.parametrize("is_binary", [True, False])
def test_damaged_file_is_named(linear: TestClient, is_binary: bool) -> None:
    """A request with a damaged file fails as a whole; the error has the index and the reason."""
    uploads = [encode(PIXELS[0]), encode(PIXELS[1]), fault("truncated.jpg"), b""]
    described = files(in_base64(uploads))
    binary = join(uploads) if is_binary else b""
    if is_binary:
        del described["data"]
        described["parameters"] = {"binary_data_size": len(binary)}
    response = infer(linear, "linear", {"inputs": [described]}, binary)
    assert_error(response, 422, "the image at index 2: the JPEG image is incomplete")


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"priority": 3, "timeout": 1000}, 200),
        ({"content_type": "np"}, 200),
        ({"content_type": "base64"}, 400),
        ({"content_type": "str"}, 400),
        ({"sequence_id": 1}, 400),
        ({"top_k": 1}, 400),
        ({"binary_data_output": "yes"}, 400),
    ],
)
def test_parameter_is_used_or_rejected(
    linear: TestClient, parameters: dict[str, Any], status: int
) -> None:
    """A parameter that would change the answer, or that the service does not know, gets a 400."""
    request = {"inputs": [tensor(PIXELS[:1])], "parameters": parameters}
    response = infer(linear, "linear", request)
    assert response.status_code == status, response.text


def test_request_is_observed_like_every_upload(
    linear: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A request has an id, Server-Timing, a log line with its route, and counted predictions."""
    with caplog.at_level(logging.INFO, "service.access"):
        response = infer(linear, "linear", {"inputs": [tensor(PIXELS[:1])]})
        infer(linear, "linear", {"inputs": [tensor(PIXELS[:5])]})
    assert "inference;dur=" in response.headers["server-timing"]
    first, second = (record.__dict__["request"] for record in caplog.records[-2:])
    assert first["route"] == "/v2/models/{name}/infer"
    assert first["request_id"] == response.headers["x-request-id"]
    assert second["images"] == 5
    metrics = linear.get("/metrics").text
    assert 'route="/v2/models/{name}/infer"' in metrics


def test_image_with_too_many_pixels_is_named(linear_folder: Path) -> None:
    """An image above the limit of pixels gets 413, with its index."""
    settings = Settings(models=(linear_folder,), device="cpu", max_image_pixels=1000)
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        request = {"inputs": [files(in_base64([encode(PIXELS[0]), encode(noise(90, 90))]))]}
        assert_error(infer(client, "linear", request), 413, "the image at index 1: ")


@pytest.mark.parametrize("as_files", [False, True])
def test_request_costs_as_many_as_it_has_images(linear_folder: Path, as_files: bool) -> None:
    """A request is charged for each image, and one that exceeds the quota gets 429."""
    settings = Settings(models=(linear_folder,), device="cpu", rate_limit_per_minute=5)
    uploads = in_base64([encode(pixels) for pixels in PIXELS[:2]])
    described = files(uploads) if as_files else tensor(PIXELS[:2])
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        answers = [infer(client, "linear", {"inputs": [described]}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[1].headers["ratelimit"].startswith('"default";r=1;')
