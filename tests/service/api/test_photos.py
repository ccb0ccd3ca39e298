"""A photo model behind /predict: its answers, its explanation, and odd images."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.service.api.test_predict import post
from tests.service.bundles import photo_answer, photo_model, write_photo_bundle
from tests.service.conftest import wait_until_ready
from tests.service.images import encode, noise

HEIGHT, WIDTH = 24, 32  # of the input of the model of colours


def test_photo_is_answered_like_its_letterboxed_pixels(colours: TestClient) -> None:
    """The answer is what NumPy computes for the upright photo with grey bars."""
    body = post(colours, encode(Image.new("RGB", (200, 200), (250, 20, 10)))).json()
    seen = np.full((HEIGHT, WIDTH, 3), 127, np.uint8)
    seen[:, 4:28] = (250, 20, 10)
    assert body["class_name"] == "red"
    assert list(body["probabilities"].values()) == pytest.approx(photo_answer(seen), abs=1e-5)
    assert body["distance"] == pytest.approx(seen.mean() / 255, abs=1e-5)
    assert "explanation" not in body


def test_explanation_shows_the_picture_and_where_the_model_looked(colours: TestClient) -> None:
    """The heat map is hottest where the answered colour is; fields of grey models are absent."""
    photo = Image.new("RGB", (320, 240), "black")
    photo.paste((255, 0, 0), (240, 0, 320, 80))
    body = post(colours, encode(photo), explain=True).json()
    explanation = body.pop("explanation")
    assert body == post(colours, encode(photo)).json()
    assert explanation.keys() == {"image", "heat_map"}
    seen, heat_map = (
        np.asarray(Image.open(BytesIO(base64.b64decode(explanation[name])))).astype(int)
        for name in ("image", "heat_map")
    )
    assert seen.shape == heat_map.shape == (HEIGHT, WIDTH, 3)
    assert seen[2, 30].tolist() == [255, 0, 0]
    greens = heat_map[..., 1]
    assert greens[:8, 24:].mean() > greens[8:, :24].max()


def test_explanation_without_activations_has_no_heat_map(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A photo model without the output ``activations`` is served; its explanation has no map."""
    model = photo_model(HEIGHT, WIDTH, with_activations=False)
    folder = write_photo_bundle(tmp_path_factory.mktemp("models") / "1", model=model).folder
    with TestClient(create_app(Settings(models=(folder,), device="cpu"))) as client:
        wait_until_ready(client)
        body = post(client, encode(noise(50, 50)), explain=True).json()
    assert body["explanation"].keys() == {"image"}


@pytest.mark.parametrize(
    "photo",
    [
        Image.new("RGB", (20_000, 10), "white"),
        Image.new("RGB", (10, 20_000), "white"),
        Image.new("L", (1, 1)),
        Image.new("RGB", (640, 480), "black"),
        Image.new("L", (28, 28), 255),
        Image.fromarray(noise(480, 640)),
        Image.new("RGBA", (300, 300), (0, 0, 0, 0)),
    ],
    ids=["wide", "tall", "pixel", "black", "tiny", "noise", "invisible"],
)
def test_photo_of_no_garment_gets_an_answer(colours: TestClient, photo: Image.Image) -> None:
    """Panoramas, single pixels, black, noise and invisible images get 200 and an explanation."""
    response = post(colours, encode(photo), explain=True)
    assert response.status_code == 200
    assert isinstance(response.json()["in_distribution"], bool)
    assert "heat_map" in response.json()["explanation"]


def test_tensor_of_photos_is_answered(colours: TestClient) -> None:
    """A tensor uint8 [N, height, width, 3] is used unchanged; another shape gets 422."""
    photos = np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)
    body = colours.post(
        "/predict/batch",
        content=photos.tobytes(),
        headers={"Content-Type": "application/octet-stream", "X-Shape": "5,24,32,3"},
    ).json()
    for photo, answer in zip(photos, body["predictions"], strict=True):
        assert list(answer["probabilities"].values()) == pytest.approx(
            photo_answer(photo), abs=1e-5
        )
    grey = colours.post(
        "/predict/batch",
        content=photos[..., 0].tobytes(),
        headers={"Content-Type": "application/octet-stream", "X-Shape": "5,24,32"},
    )
    assert grey.status_code == 422
    assert "send uint8 [N,24,32,3]" in grey.json()["detail"]


def test_input_of_a_photo_model_is_described(colours: TestClient) -> None:
    """GET /models names the rule and the size of the photo model's input."""
    (model,) = colours.get("/models").json()["models"]
    assert model["input"] == {"height": HEIGHT, "width": WIDTH, "preprocessing": "letterbox"}
