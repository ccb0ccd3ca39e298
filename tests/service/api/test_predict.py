"""POST /predict, through HTTP and a real session."""

from __future__ import annotations

import base64
import gc
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.api.problems import MEDIA_TYPE
from service.app import create_app
from service.settings import Settings
from tests import golden
from tests.service.bundles import linear_model
from tests.service.images import encode, fault, noise

PIXELS = noise(20, 30)
IMAGE = encode(PIXELS)


def post(
    client: TestClient, content: bytes, content_type: str = "image/png", **query: Any
) -> httpx2.Response:
    """Upload ``content`` as the raw body."""
    return client.post(
        "/predict", content=content, headers={"content-type": content_type}, params=query
    )


def assert_problem(response: httpx2.Response, status: int, name: str) -> dict[str, Any]:
    """Check that a response is a problem body in full, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert body.keys() == {"type", "title", "status", "detail", "request_id"}
    assert body["type"] == f"urn:problem-type:fashion-classifier:{name}"
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def test_answer_is_what_the_model_says_of_the_raw_pixels(linear: TestClient) -> None:
    """A grey image of the model's size is answered with the model's own probabilities, in label order."""
    session = onnxruntime.InferenceSession(
        linear_model(3, 20, 30), providers=["CPUExecutionProvider"]
    )
    expected = session.run(["probabilities"], {"image": PIXELS[np.newaxis]})[0][0]
    body = post(linear, IMAGE).json()
    assert list(body["probabilities"]) == ["left", "middle", "right"]
    np.testing.assert_allclose(list(body["probabilities"].values()), expected, atol=1e-6)
    assert sum(body["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert body["class_id"] == int(expected.argmax())
    assert body["class_name"] == ["left", "middle", "right"][body["class_id"]]
    assert body["probability"] == body["probabilities"][body["class_name"]]
    assert body["model"] == {"name": "linear", "version": "1"}


def test_golden_set_is_answered_as_by_keras(shipped: TestClient) -> None:
    """Every golden image, uploaded as PNG, gets the probabilities of the network that was trained, by class name."""
    names = shipped.app.state.predictor.classifier.manifest.class_names  # type: ignore[attr-defined]
    for image, expected in zip(golden.images(), golden.probabilities(), strict=True):
        body = post(shipped, encode(image)).json()
        assert tuple(body["probabilities"]) == names
        np.testing.assert_allclose(
            list(body["probabilities"].values()), expected, atol=golden.TOLERANCE
        )
        assert body["class_id"] == expected.argmax()


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/jpeg", "image/x-anything", "application/octet-stream"]
)
def test_form_and_raw_body_give_the_same_answer(linear: TestClient, content_type: str) -> None:
    """The file part of a form and the same bytes as the body are answered alike, whatever type is claimed."""
    form = linear.post("/predict", files={"file": ("name.png", IMAGE)})
    assert form.status_code == 200
    assert post(linear, IMAGE, content_type).json() == form.json()


def test_form_may_hold_ordinary_fields_too(linear: TestClient) -> None:
    """Fields that are no files, as browsers add them, are passed over."""
    response = linear.post("/predict", files={"file": IMAGE}, data={"token": "x"})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "GIF", "AVIF", "JPEG"])
def test_every_format_is_read(linear: TestClient, file_format: str) -> None:
    """Each accepted format is decoded; the lossless ones to the very same answer."""
    options: dict[str, dict[str, bool | int]] = {
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100},
        "JPEG": {"quality": 95},
    }
    body = post(linear, encode(PIXELS, file_format, **options.get(file_format, {}))).json()
    assert list(body["probabilities"].values()) == pytest.approx(
        list(post(linear, IMAGE).json()["probabilities"].values()),
        abs=0.02 if file_format == "JPEG" else 0,
    )


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_holds_the_most_likely_best_first(linear: TestClient, top_k: int) -> None:
    """With top_k the answer holds k classes in order of probability, and is otherwise unchanged."""
    full = post(linear, IMAGE).json()
    short = post(linear, IMAGE, top_k=top_k).json()
    best = sorted(full["probabilities"].items(), key=lambda item: -item[1])[:top_k]
    assert list(short["probabilities"].items()) == best
    assert {**short, "probabilities": None} == {**full, "probabilities": None}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"top_k": "0"}, "top_k"),
        ({"top_k": "4"}, "1 to 3"),
        ({"top_k": "many"}, "many"),
        ({"top_k": ""}, "top_k"),
        ({"topk": "1"}, "topk"),
    ],
)
def test_bad_query_is_named(linear: TestClient, query: dict[str, str], named: str) -> None:
    """A parameter out of range, of the wrong type or unknown is refused by name."""
    assert named in assert_problem(post(linear, IMAGE, **query), 422, "invalid-parameter")["detail"]


@pytest.mark.parametrize(
    ("name", "status", "problem"),
    [
        ("empty.png", 422, "unreadable-image"),
        ("text.png", 422, "unreadable-image"),
        ("vector.svg", 422, "unreadable-image"),
        ("photo.tiff", 422, "unreadable-image"),
        ("truncated.jpg", 422, "unreadable-image"),
        ("bomb-30000x30000.png", 413, "image-too-large"),
        ("bomb-8000x8000.avif", 413, "image-too-large"),
    ],
)
@pytest.mark.parametrize("in_form", [True, False])
def test_broken_image_is_refused_and_the_service_goes_on(
    linear: TestClient, name: str, status: int, problem: str, in_form: bool
) -> None:
    """A broken upload gets its own status and problem, and the next good one is answered."""
    content = fault(name)
    response = (
        linear.post("/predict", files={"file": (name, content)})
        if in_form
        else post(linear, content)
    )
    assert_problem(response, status, problem)
    assert post(linear, IMAGE).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "grey-16-bit.png",
        "cmyk.jpg",
        "palette-transparent.png",
        "animated.gif",
        "exif-rotated.jpg",
        "rotated.avif",
        "transparent.avif",
        "animated.avif",
    ],
)
def test_unusual_image_is_answered_like_the_plain_photo(shipped: TestClient, name: str) -> None:
    """Depth, colour space, transparency, further frames and orientation do not change the answer to a photo."""
    plain = post(shipped, fault("photo.png")).json()
    body = post(shipped, fault(name)).json()
    assert body["class_name"] == plain["class_name"] == "Ankle boot"
    assert body["probability"] == pytest.approx(plain["probability"], abs=0.02)


def test_smallest_image_is_answered(shipped: TestClient) -> None:
    """An image of one pixel is an image."""
    assert post(shipped, fault("1x1.png")).status_code == 200


def test_body_of_12_mb_is_refused_by_default(shipped: TestClient) -> None:
    """Past 10 MiB a body is refused, by its declared length and as it arrives when it declares none."""
    body = bytes(12_000_000)
    assert (
        "12000000 bytes" in assert_problem(post(shipped, body), 413, "upload-too-large")["detail"]
    )
    chunks = (body[:1_000_000] for _ in range(12))
    chunked = shipped.post("/predict", content=chunks, headers={"content-type": "image/png"})
    assert_problem(chunked, 413, "upload-too-large")


def test_body_limit_is_exact(linear: TestClient) -> None:
    """A body of the limit passes, one byte more does not."""
    limit = 1_000_000
    assert_problem(post(linear, bytes(limit)), 422, "unreadable-image")
    assert_problem(post(linear, bytes(limit + 1)), 413, "upload-too-large")


def test_wrong_form_is_refused(linear: TestClient) -> None:
    """A form without exactly one file part named file is refused, and its parts are named."""
    wrong_name = linear.post("/predict", files={"image": IMAGE})
    assert "'image'" in assert_problem(wrong_name, 400, "malformed-form")["detail"]
    two = linear.post("/predict", files=[("file", IMAGE), ("file", IMAGE)])
    assert_problem(two, 400, "malformed-form")
    another = linear.post("/predict", files=[("file", IMAGE), ("other", IMAGE)])
    assert "'other'" in assert_problem(another, 400, "malformed-form")["detail"]
    many = linear.post(
        "/predict", files={"file": IMAGE}, data={f"field{i}": "x" for i in range(100)}
    )
    assert_problem(many, 400, "malformed-form")
    long_head = {"file": ("a.png", IMAGE, "image/png", {f"x{i}": "y" for i in range(100)})}
    assert (
        "lines"
        in assert_problem(linear.post("/predict", files=long_head), 400, "malformed-form")["detail"]
    )


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc',
        ),
        (f"multipart/form-data; boundary={'x' * 5000}", b""),
    ],
)
def test_damaged_form_is_refused(linear: TestClient, content_type: str, body: bytes) -> None:
    """A form without a boundary, without a beginning or without an end is refused as damaged."""
    assert_problem(post(linear, body, content_type), 400, "malformed-form")


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""]
)
def test_wrong_content_type_is_refused(linear: TestClient, content_type: str) -> None:
    """A body that does not claim to be an image or a form is refused, with the accepted types."""
    detail = assert_problem(post(linear, IMAGE, content_type), 415, "unsupported-type")["detail"]
    assert "multipart/form-data" in detail


def test_framework_errors_are_problems_too(linear: TestClient) -> None:
    """Unknown paths and methods are answered in the same form as the service's own errors."""
    assert_problem(linear.get("/nowhere"), 404, "not-found")
    response = linear.get("/predict")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_request_id_is_kept_if_plain(linear: TestClient) -> None:
    """A plain X-Request-ID comes back; one that could forge log lines is replaced."""
    assert (
        linear.get("/health", headers={"X-Request-ID": "abc-123"}).headers["x-request-id"]
        == "abc-123"
    )
    assert (
        "forged"
        not in linear.get("/health", headers={"X-Request-ID": "x\tforged"}).headers["x-request-id"]
    )
    assert (
        linear.get("/health").headers["x-request-id"]
        != linear.get("/health").headers["x-request-id"]
    )


@pytest.mark.parametrize(
    "image",
    [IMAGE, fault("photo.png"), fault("photo.png")[:-100], encode(Image.new("RGB", (7000, 7000)))],
    ids=["as the model's input", "photo", "damaged", "slow"],
)
def test_upload_is_freed_with_its_answer(linear: TestClient, image: bytes) -> None:
    """Nothing of an upload waits in memory for the garbage collector, which runs seldom; nor of one that takes long."""
    post(linear, image)
    gc.collect()
    gc.disable()
    try:
        post(linear, image)
        linear.get("/health")  # by now the event loop has turned
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
    finally:
        gc.set_debug(0)
        gc.enable()
    frames = [each for each in gc.garbage if isinstance(each, FrameType)]
    left = [
        each.f_code.co_qualname
        for each in frames
        if each.f_globals["__name__"].startswith("service.")
    ]
    gc.garbage.clear()  # the test's client leaves some, the service none
    assert not left


def test_unforeseen_error_is_opaque(linear_folder: Path) -> None:
    """An error that nobody foresaw becomes a 500 that tells nothing but its request id, and the service goes on."""
    app = create_app(Settings(model=linear_folder, device="cpu"))

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    with TestClient(app) as client:
        response = client.get("/broken")
        assert_problem(response, 500, "internal-error")
        assert "secret" not in response.text
        assert client.get("/health/live").status_code == 200


def test_metrics_count_requests_and_classes(linear: TestClient) -> None:
    """Answers are counted by route and status, and predictions by class; unknown paths share one label."""

    def value(line: str) -> float:
        lines = [text for text in linear.get("/metrics").text.splitlines() if text.startswith(line)]
        return float(lines[0].rsplit(" ", 1)[1]) if lines else 0

    class_name = post(linear, IMAGE).json()["class_name"]
    names = (
        'service_requests_total{route="/predict",status="200"}',
        f'service_predictions_total{{class_name="{class_name}"}}',
        'service_requests_total{route="unmatched",status="404"}',
    )
    before = [value(name) for name in names]
    post(linear, IMAGE)
    linear.get("/one")
    linear.get("/two")
    assert [value(name) for name in names] == [before[0] + 1, before[1] + 1, before[2] + 2]
    assert "/one" not in linear.get("/metrics").text


def test_explanation_shows_what_the_model_saw(shipped: TestClient) -> None:
    """With explain, the answer holds the very image that the model was given and how it came about, else nothing."""
    photo = np.full((300, 400, 3), (244, 240, 232), np.uint8)
    photo[60:260, 100:200] = (20, 30, 90)
    photo[80:260, 100:110] = (120, 130, 190)
    body = post(shipped, encode(photo), explain=True).json()
    explanation = body.pop("explanation")
    png = base64.b64decode(explanation.pop("image"))
    assert Image.open(BytesIO(png)).size == (28, 28)
    assert explanation.pop("item_box") == pytest.approx([0.25, 0.2, 0.5, 0.867], abs=0.02)
    assert 0.8 < explanation.pop("mask_quality") <= 1
    ground = bytes.fromhex(explanation.pop("background").removeprefix("#"))
    np.testing.assert_allclose(list(ground), [244, 240, 232], atol=5)
    assert explanation == {"polarity": "negated", "mirrored": False, "warnings": []}
    assert post(shipped, png).json() == body == post(shipped, encode(photo)).json()


def test_explanation_of_an_image_taken_as_it_is(linear: TestClient) -> None:
    """Of an image that the model takes as it is there is nothing to tell but that."""
    explanation = post(linear, IMAGE, explain=True).json()["explanation"]
    np.testing.assert_array_equal(
        Image.open(BytesIO(base64.b64decode(explanation.pop("image")))), PIXELS
    )
    assert explanation == {"polarity": "kept", "mirrored": False, "warnings": []}


def test_explanation_warns(shipped: TestClient) -> None:
    """An item that leaves the photo, several things in one, and nothing at all are told."""
    empty, cut_off = (np.full((300, 300, 3), 230, np.uint8) for _ in range(2))
    cut_off[100:, 80:220] = (120, 20, 20)
    cluttered = (
        np.random.default_rng(0)
        .integers(0, 256, (8, 8, 3), np.uint8)
        .repeat(40, axis=0)
        .repeat(40, axis=1)
    )
    told = [
        post(shipped, encode(photo), explain=True).json()["explanation"]["warnings"]
        for photo in (empty, cut_off, cluttered)
    ]
    assert told[0] == ["no item"]
    assert "cut off" in told[1]
    assert "cluttered" in told[2]


def test_parameter_is_given_once(linear: TestClient) -> None:
    """A parameter that is given twice is refused, not chosen from."""
    response = linear.post("/predict?top_k=1&top_k=2", files={"file": IMAGE})
    assert "top_k is given 2 times" in assert_problem(response, 422, "invalid-parameter")["detail"]


def test_many_parameters_are_refused(linear: TestClient) -> None:
    """More parameters than anybody needs are not looked at one by one."""
    response = linear.post(
        "/predict", params=dict.fromkeys(map(str, range(1000)), ""), files={"file": IMAGE}
    )
    assert (
        "1000 parameters are given" in assert_problem(response, 422, "invalid-parameter")["detail"]
    )
