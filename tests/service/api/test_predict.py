"""POST /predict over HTTP, with a real ONNX Runtime session."""

from __future__ import annotations

import base64
import gc
from io import BytesIO
from types import FrameType
from typing import Any

import httpx2
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.api.problems import MEDIA_TYPE
from tests import golden
from tests.service.bundles import linear_model
from tests.service.images import encode, fault, noise
from training.data.sources.idx import CLASS_NAMES

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
    """Check that a response is a complete problem body, and return the body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body: dict[str, Any] = response.json()
    assert body.keys() == {"type", "title", "status", "detail", "request_id"}
    assert body["type"] == f"urn:problem-type:fashion-classifier:{name}"
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    return body


def test_answer_has_the_probabilities_of_the_raw_pixels(linear: TestClient) -> None:
    """A grey image of the model's size gets the model's own probabilities, in label order."""
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


@pytest.mark.parametrize("model", ["resnet-8", "garments"])
def test_golden_set_is_answered(shipped: TestClient, model: str) -> None:
    """Every golden image, uploaded as PNG, gets the model's probabilities in the golden set."""
    for image, expected in zip(golden.images(), golden.probabilities(model), strict=True):
        body = post(shipped, encode(image), model=model).json()
        assert body["model"]["name"] == model
        assert tuple(body["probabilities"]) == CLASS_NAMES
        np.testing.assert_allclose(
            list(body["probabilities"].values()), expected, atol=golden.TOLERANCES[model]
        )


def test_grey_image_goes_to_the_grey_model_and_a_photo_to_the_other(shipped: TestClient) -> None:
    """The shipped models share the work by greyness and size; the answer names the model."""
    image = golden.images()[0]
    assert post(shipped, encode(image)).json()["model"]["name"] == "resnet-8"
    enlarged = image.repeat(2, axis=0).repeat(2, axis=1)
    assert post(shipped, encode(enlarged)).json()["model"]["name"] == "garments"
    tinted = np.stack([image, image, image // 2], axis=-1)
    assert post(shipped, encode(tinted)).json()["model"]["name"] == "garments"


@pytest.mark.parametrize(
    "content_type",
    [
        *("image/png", "image/jpeg", "image/x-anything"),
        *("application/octet-stream", "binary/octet-stream", ""),
    ],
)
def test_form_and_raw_body_give_the_same_answer(linear: TestClient, content_type: str) -> None:
    """A raw body of any image type, or of no type, gets the same answer as a form's file part."""
    form = linear.post("/predict", files={"file": ("name.png", IMAGE)})
    assert form.status_code == 200
    raw = post(linear, IMAGE, content_type).json()
    assert raw["probabilities"] == form.json()["probabilities"]


def test_form_may_hold_ordinary_fields_too(linear: TestClient) -> None:
    """A form may also hold fields without files, as browsers add them; they are ignored."""
    response = linear.post("/predict", files={"file": IMAGE}, data={"token": "x"})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "GIF", "AVIF", "JPEG"])
def test_every_format_is_read(linear: TestClient, file_format: str) -> None:
    """Each accepted format is decoded; every lossless format gets the same answer."""
    options: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100},
        "JPEG": {"quality": 95},
    }
    content = encode(PIXELS, file_format, **options.get(file_format, {}))
    body = post(linear, content).json()
    expected = post(linear, IMAGE).json()["probabilities"]
    tolerance = 0.02 if file_format == "JPEG" else 0
    assert body["probabilities"] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_returns_the_most_likely_classes_in_order(linear: TestClient, top_k: int) -> None:
    """With top_k the answer holds the k most likely classes in order; its class is unchanged."""
    full = post(linear, IMAGE).json()
    short = post(linear, IMAGE, top_k=top_k).json()
    best = sorted(full["probabilities"].items(), key=lambda item: -item[1])[:top_k]
    assert list(short["probabilities"].items()) == best
    for name in ("class_id", "class_name", "probability"):
        assert short[name] == full[name]


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
def test_broken_image_is_rejected_and_the_service_goes_on(
    linear: TestClient, name: str, status: int, problem: str, in_form: bool
) -> None:
    """A broken upload gets its own status and problem, and the next valid upload is answered."""
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
    """Depth, colour space, transparency, animation and orientation do not change the answer."""
    plain = post(shipped, fault("photo.png")).json()
    body = post(shipped, fault(name)).json()
    assert body["class_name"] == plain["class_name"] == "Ankle boot"
    assert body["probability"] == pytest.approx(plain["probability"], abs=0.02)


def test_smallest_image_is_answered(shipped: TestClient) -> None:
    """An image of one pixel is answered."""
    assert post(shipped, fault("1x1.png")).status_code == 200


def test_body_of_12_mb_is_rejected_by_default(shipped: TestClient) -> None:
    """A body over 10 MiB is rejected, whether it declares its length or not."""
    body = bytes(12_000_000)
    assert (
        "12000000 bytes" in assert_problem(post(shipped, body), 413, "upload-too-large")["detail"]
    )
    chunks = (body[:1_000_000] for _ in range(12))
    chunked = shipped.post("/predict", content=chunks, headers={"content-type": "image/png"})
    assert_problem(chunked, 413, "upload-too-large")


def test_body_limit_is_exact(linear: TestClient) -> None:
    """A body of exactly the limit is read; a body one byte larger is rejected."""
    limit = 1_000_000
    assert_problem(post(linear, bytes(limit)), 422, "unreadable-image")
    assert_problem(post(linear, bytes(limit + 1)), 413, "upload-too-large")


def test_wrong_form_is_rejected(linear: TestClient) -> None:
    """A form without exactly one part named `file` is rejected; the detail names other files."""
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
def test_damaged_form_is_rejected(linear: TestClient, content_type: str, body: bytes) -> None:
    """A form without a boundary, a beginning or an end is rejected."""
    assert_problem(post(linear, body, content_type), 400, "malformed-form")


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_wrong_content_type_is_rejected(linear: TestClient, content_type: str) -> None:
    """A content type other than an image or a form is rejected; the detail names the form."""
    detail = assert_problem(post(linear, IMAGE, content_type), 415, "unsupported-type")["detail"]
    assert "multipart/form-data" in detail


@pytest.mark.parametrize(
    "image",
    [IMAGE, fault("photo.png"), fault("photo.png")[:-100], encode(Image.new("RGB", (7000, 7000)))],
    ids=["as the model's input", "photo", "damaged", "slow"],
)
def test_upload_is_freed_with_its_answer(linear: TestClient, image: bytes) -> None:
    """No upload stays in a reference cycle, because the garbage collector runs rarely."""
    post(linear, image)
    gc.collect()
    gc.disable()
    try:
        post(linear, image)
        linear.get("/health")  # the event loop has now finished the upload
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
    finally:
        gc.set_debug(0)
        gc.enable()
    frames = [each for each in gc.garbage if isinstance(each, FrameType)]
    uncollected = [
        each.f_code.co_qualname
        for each in frames
        if each.f_globals["__name__"].startswith("service.")
    ]
    gc.garbage.clear()  # the test's client leaves some objects, the service none
    assert not uncollected


def test_explanation_shows_what_the_model_saw(shipped: TestClient) -> None:
    """With explain, a grey model's answer has the model's input and says how it was made."""
    photo = np.full((300, 400, 3), (244, 240, 232), np.uint8)
    photo[60:260, 100:200] = (20, 30, 90)
    photo[80:260, 100:110] = (120, 130, 190)
    body = post(shipped, encode(photo), explain=True, model="resnet-8").json()
    explanation = body.pop("explanation")
    png = base64.b64decode(explanation.pop("image"))
    assert Image.open(BytesIO(png)).size == (28, 28)
    assert explanation.pop("item_box") == pytest.approx([0.25, 0.2, 0.5, 0.867], abs=0.02)
    assert 0.8 < explanation.pop("mask_quality") <= 1
    background = bytes.fromhex(explanation.pop("background").removeprefix("#"))
    np.testing.assert_allclose(list(background), [244, 240, 232], atol=5)
    expected = {"polarity": "negated", "mirrored": False, "warnings": []}
    assert explanation.items() >= expected.items()
    for alone in (post(shipped, png), post(shipped, encode(photo), model="resnet-8")):
        assert alone.json()["probabilities"] == body["probabilities"]


def test_explanation_of_an_unchanged_image(linear: TestClient) -> None:
    """The explanation of an unchanged image has no background, no box and no quality."""
    explanation = post(linear, IMAGE, explain=True).json()["explanation"]
    np.testing.assert_array_equal(
        Image.open(BytesIO(base64.b64decode(explanation.pop("image")))), PIXELS
    )
    expected = {"polarity": "kept", "mirrored": False, "warnings": []}
    assert explanation.items() >= expected.items()
    assert not {"background", "item_box", "mask_quality"} & explanation.keys()


def test_explanation_warns(shipped: TestClient) -> None:
    """A grey model's explanation warns of a missing item, of a cut-off item and of clutter."""
    empty, cut_off = (np.full((300, 300, 3), 230, np.uint8) for _ in range(2))
    cut_off[100:, 80:220] = (120, 20, 20)
    cluttered = (
        np.random.default_rng(0)
        .integers(0, 256, (8, 8, 3), np.uint8)
        .repeat(40, axis=0)
        .repeat(40, axis=1)
    )
    warnings = [
        post(shipped, encode(photo), explain=True, model="resnet-8").json()["explanation"][
            "warnings"
        ]
        for photo in (empty, cut_off, cluttered)
    ]
    assert warnings[0] == ["no item"]
    assert "cut off" in warnings[1]
    assert "cluttered" in warnings[2]
