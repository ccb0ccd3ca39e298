"""Several models behind /predict: which of them answers, and where its name is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.bundle import MODEL_FILE
from service.settings import Settings
from tests.service.api.test_predict import assert_problem, post
from tests.service.bundles import linear_model, write_linear_bundle, write_photo_bundle
from tests.service.conftest import wait_until_ready
from tests.service.images import encode, fault, noise

MODELS = Path(__file__).parents[3] / "models"
ITEM = encode(noise(28, 28))  # grey, of exactly the size of the grey models
PHOTO = encode(Image.new("RGB", (64, 48), "blue"))


@pytest.fixture(scope="module")
def several(photo_folder: Path) -> Iterator[TestClient]:
    """Client of an application that serves two grey models and a photo model, in this order."""
    folders = MODELS / "resnet-8" / "3", MODELS / "resnet-8-tiny" / "2", photo_folder
    with TestClient(create_app(Settings(models=folders, device="cpu"))) as client:
        wait_until_ready(client)
        yield client


def who(client: TestClient, upload: bytes, **query: str) -> str:
    """Upload an image; return the name of the model that answers."""
    response = post(client, upload, "image/png", **query)
    assert response.status_code == 200, response.text
    name: str = response.json()["model"]["name"]
    return name


@pytest.mark.parametrize(
    ("upload", "name"),
    [
        (ITEM, "resnet-8"),
        (encode(Image.fromarray(noise(28, 28)).convert("RGB")), "resnet-8"),
        (encode(Image.fromarray(noise(28, 28)), "JPEG"), "resnet-8"),
        (encode(Image.new("RGB", (28, 28), "red")), "colours"),
        (encode(noise(28, 29)), "colours"),
        (encode(noise(24, 32)), "colours"),
        (encode(noise(56, 56), "JPEG"), "colours"),
        (encode(noise(280, 280), "JPEG"), "colours"),
        (PHOTO, "colours"),
        (fault("photo.png"), "colours"),
    ],
    ids=["L", "RGB", "JPEG", "colour", "wider", "24x32", "56x56", "280x280", "blue", "photo"],
)
def test_image_decides_which_model_answers(several: TestClient, upload: bytes, name: str) -> None:
    """A grey image of exactly 28 x 28 goes to the first grey model, all others to the photo one."""
    assert who(several, upload) == name


@pytest.mark.parametrize("upload", [ITEM, PHOTO], ids=["item", "photo"])
@pytest.mark.parametrize("name", ["resnet-8", "resnet-8-tiny", "colours"])
def test_named_model_answers_every_image(several: TestClient, upload: bytes, name: str) -> None:
    """With `model`, the named model answers, whatever the image is."""
    assert who(several, upload, model=name) == name


def test_answer_is_that_of_the_model_alone(several: TestClient, colours: TestClient) -> None:
    """Beside other models, a model gives each image the same answer as alone."""
    for upload in (PHOTO, ITEM, fault("photo.png"), encode(noise(300, 200))):
        beside = post(several, upload, model="colours").json()
        alone = post(colours, upload).json()
        for name in ("model", "probabilities", "distance"):
            assert beside[name] == alone[name]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("name", ["other", "", "x" * 5000])
def test_unknown_model_is_rejected(several: TestClient, path: str, name: str) -> None:
    """An unknown name gets 422 for files and tensors, and the detail lists the served models."""
    files = several.post(path, files={"file": ITEM}, params={"model": name})
    problem = assert_problem(files, 422, "invalid-parameter")
    assert "resnet-8, resnet-8-tiny, colours" in problem["detail"]
    assert len(problem["detail"]) < 300
    headers = {"Content-Type": "application/octet-stream", "X-Shape": "1,28,28"}
    if path == "/predict/batch":
        tensor = several.post(path, content=bytes(784), headers=headers, params={"model": name})
        assert_problem(tensor, 422, "invalid-parameter")


def test_parameters_are_checked_for_the_model_that_answers(several: TestClient) -> None:
    """`top_k` may be as large as the answering model's number of classes."""
    assert len(post(several, ITEM, top_k=10).json()["probabilities"]) == 10
    problem = assert_problem(post(several, PHOTO, top_k=10), 422, "invalid-parameter")
    assert "top_k=10: the model colours has 3 classes" in problem["detail"]
    assert post(several, ITEM, coverage=0.9).status_code == 200
    problem = assert_problem(post(several, PHOTO, coverage=0.9), 422, "invalid-parameter")
    assert "colours has no prediction sets" in problem["detail"]


def test_images_of_a_batch_are_routed_one_by_one(several: TestClient) -> None:
    """Each file of a batch is answered by its own model, as alone; a bad file fails alone."""
    uploads = [PHOTO, ITEM, b"no image", fault("photo.png"), ITEM] * 20
    files = [("file", upload) for upload in uploads]
    answers = several.post("/predict/batch", files=files).json()["predictions"]
    alone = {upload: post(several, upload).json() for upload in (PHOTO, ITEM, fault("photo.png"))}
    for upload, answer in zip(uploads, answers, strict=True):
        if upload == b"no image":
            assert answer["problem"]["status"] == 422
        else:
            assert answer == alone[upload]
    named = several.post("/predict/batch", files=files, params={"model": "resnet-8-tiny"}).json()
    models = {answer["model"]["name"] for answer in named["predictions"] if "model" in answer}
    assert models == {"resnet-8-tiny"}


@pytest.mark.parametrize(
    ("shape", "query", "name"),
    [
        ("2,28,28", {}, "resnet-8"),
        ("2,28,28", {"model": "resnet-8-tiny"}, "resnet-8-tiny"),
        ("2,24,32,3", {}, "colours"),
    ],
)
def test_shape_of_a_tensor_decides(
    several: TestClient, shape: str, query: dict[str, str], name: str
) -> None:
    """The first model that takes the images' shape answers a tensor, or else the named one."""
    size = int(np.prod([int(number) for number in shape.split(",")]))
    headers = {"Content-Type": "application/octet-stream", "X-Shape": shape}
    content = bytes(range(256)) * (size // 256 + 1)
    response = several.post("/predict/batch", content=content[:size], headers=headers, params=query)
    answers = response.json()["predictions"]
    assert [answer["model"]["name"] for answer in answers] == [name, name]


def test_tensor_that_no_model_takes_is_rejected(several: TestClient) -> None:
    """The detail lists the shapes of all models, each once; with `model`, only the named one's."""
    headers = {"Content-Type": "application/octet-stream", "X-Shape": "1,24,32"}
    response = several.post("/predict/batch", content=bytes(768), headers=headers)
    problem = assert_problem(response, 422, "unreadable-tensor")
    assert "send uint8 [N,28,28] or [N,24,32,3]" in problem["detail"]
    headers["X-Shape"] = "1,24,32,3"
    response = several.post(
        "/predict/batch",
        content=bytes(768 * 3),
        headers=headers,
        params={"model": "resnet-8"},
    )
    problem = assert_problem(response, 422, "unreadable-tensor")
    assert "send uint8 [N,28,28] with" in problem["detail"]


def test_without_a_photo_model_the_first_model_answers(linear_folder: Path) -> None:
    """Of two grey models, each answers grey images of its size, and the first all other images."""
    folders = MODELS / "resnet-8-tiny", linear_folder
    with TestClient(create_app(Settings(models=folders, device="cpu"))) as client:
        wait_until_ready(client)
        assert who(client, ITEM) == "resnet-8-tiny"
        assert who(client, encode(noise(20, 30))) == "linear"
        assert who(client, PHOTO) == "resnet-8-tiny"


def test_every_model_is_listed(several: TestClient) -> None:
    """/health and /models list all models in the order of the setting; each has its card."""
    health = several.get("/health").json()
    assert health["status"] == "ready"
    assert [(model["name"], model["version"]) for model in health["models"]] == [
        ("resnet-8", "3"),
        ("resnet-8-tiny", "2"),
        ("colours", "1"),
    ]
    assert {model["status"] for model in health["models"]} == {"ready"}
    listed = several.get("/models").json()["models"]
    assert [model["name"] for model in listed] == ["resnet-8", "resnet-8-tiny", "colours"]
    assert several.get("/models/colours/card").text == "# colours\n"
    assert "resnet-8-tiny" in several.get("/models/resnet-8-tiny/card").text
    unknown = several.get("/models/other/card")
    assert "'resnet-8' or 'resnet-8-tiny' or 'colours'" in unknown.json()["detail"]


def test_log_names_the_model(several: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """The log line of a request has the models that answered, with their versions."""
    with caplog.at_level(logging.INFO, "service.access"):
        post(several, ITEM)
        several.post("/predict/batch", files=[("file", PHOTO), ("file", ITEM), ("file", PHOTO)])
    lines = [record.__dict__["request"] for record in caplog.records]
    assert [line["model"] for line in lines] == ["resnet-8/3", "colours/1,resnet-8/3"]


def test_metrics_are_counted_for_each_model(photo_folder: Path) -> None:
    """Answers, confidence, batches and inference time have the label of the model."""
    folders = MODELS / "resnet-8-tiny", photo_folder
    with TestClient(create_app(Settings(models=folders, device="cpu"))) as client:
        wait_until_ready(client)
        for upload in (ITEM, PHOTO, PHOTO):
            assert post(client, upload).status_code == 200
        text = client.get("/metrics").text
    for name in ("inference_seconds", "batch_size", "confidence"):
        assert f'service_{name}_count{{model="colours"}} 2.0' in text
        assert f'service_{name}_count{{model="resnet-8-tiny"}} 1.0' in text
    assert 'service_predictions_total{class_name="blue",model="colours"} 2.0' in text
    assert 'service_predictions_total{class_name="Bag",model="colours"}' not in text
    info = 'service_model_info{device="cpu",name="%s",provider="CPUExecutionProvider",version="%s"}'
    assert f"{info % ('resnet-8-tiny', 2)} 1.0" in text
    assert f"{info % ('colours', 1)} 1.0" in text


def wait_until_failed(client: TestClient) -> dict[str, object]:
    """Wait until /health says that the service has failed; return its body."""
    deadline = time.monotonic() + 60
    while (response := client.get("/health")).json()["status"] != "failed":
        assert time.monotonic() < deadline, response.text
    assert response.status_code == 503
    body: dict[str, object] = response.json()
    return body


def test_model_that_cannot_be_loaded_is_named(tmp_path: Path, linear_folder: Path) -> None:
    """If one of two models fails, the service is not ready, and /health says which one failed."""
    damaged = write_photo_bundle(tmp_path / "colours" / "1").folder
    (damaged / MODEL_FILE).write_bytes(b"damaged")
    stops: list[str] = []
    settings = Settings(models=(linear_folder, damaged), device="cpu")
    with TestClient(create_app(settings, on_failure=lambda: stops.append("stop"))) as client:
        body = wait_until_failed(client)
        assert [(model["name"], model["status"]) for model in body["models"]] == [  # type: ignore[attr-defined]
            ("linear", "ready"),
            ("colours", "failed"),
        ]
        problem = assert_problem(post(client, ITEM), 503, "not-ready")
        assert "failed" in problem["detail"]
        assert_problem(client.get("/models"), 503, "not-ready")
    assert stops == ["stop"]


@pytest.mark.parametrize("is_twice", [True, False])
def test_two_models_of_one_name_do_not_start(
    tmp_path: Path, linear_folder: Path, caplog: pytest.LogCaptureFixture, is_twice: bool
) -> None:
    """Two models of one name, or one folder given twice, fail; the error names both folders."""
    other = write_linear_bundle(
        tmp_path / "other", model=linear_model(3, 20, 30, with_distance=True)
    ).folder
    folders = (linear_folder, linear_folder) if is_twice else (linear_folder, other)
    stops: list[str] = []
    settings = Settings(models=folders, device="cpu")
    with TestClient(create_app(settings, on_failure=lambda: stops.append("stop"))) as client:
        wait_until_failed(client)
    assert stops == ["stop"]
    assert f"{folders[1]} and {folders[0]} both hold a model called linear" in caplog.text
