"""POST /predict/batch: many images in one request."""

from __future__ import annotations

import contextlib
from io import BytesIO

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import UnreadableTensorError
from service.imaging.tensors import MAX_BATCH_IMAGES, read_tensor
from tests.service.api.test_predict import assert_problem
from tests.service.images import encode, noise

SIZE = 20, 30  # of the linear model


def images(count: int) -> list[NDArray[np.uint8]]:
    """Draw ``count`` different images of the model's size."""
    return [noise(*SIZE, seed) for seed in range(count)]


def form(uploads: list[bytes]) -> list[tuple[str, bytes]]:
    """Put uploads into a form, each as a file part named `file`."""
    return [("file", upload) for upload in uploads]


def in_numpy_format(array: NDArray[np.generic]) -> bytes:
    """Return the bytes of a .npy file that holds ``array``."""
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_batch_answers_each_image_as_alone(linear: TestClient) -> None:
    """Each image of a form gets the same answer as in a request of its own, in order."""
    uploads = [encode(image) for image in images(70)]  # more than one model run takes
    batch = linear.post("/predict/batch", files=form(uploads), params={"top_k": 2}).json()
    alone = [
        linear.post("/predict", files={"file": upload}, params={"top_k": 2}).json()
        for upload in uploads
    ]
    for row, single in zip(batch["predictions"], alone, strict=True):
        assert list(row["probabilities"].items()) == list(single["probabilities"].items())
        assert row["model"] == single["model"]


def test_bad_image_does_not_fail_the_others(linear: TestClient) -> None:
    """A file that is not an image gets a problem with its index; the others get their answers."""
    good = encode(images(1)[0])
    response = linear.post("/predict/batch", files=form([good, b"no image", good, b""]))
    assert response.status_code == 200
    first, bad, third, empty = response.json()["predictions"]
    assert first == third
    assert first["class_name"]
    assert (bad["index"], bad["problem"]["status"]) == (1, 422)
    assert bad["problem"]["type"].endswith("unreadable-image")
    assert bad["problem"]["request_id"] == response.headers["x-request-id"]
    assert empty["index"] == 3


@pytest.mark.parametrize("saved", [True, False])
def test_tensor_gets_the_same_answers_as_files(linear: TestClient, saved: bool) -> None:
    """A tensor, as a NumPy file or as plain pixels, gets the same answers as a form of files."""
    tensor = np.stack(images(40))
    headers = {"Content-Type": "application/octet-stream"} | (
        {} if saved else {"X-Shape": "40, 20, 30"}
    )
    content = in_numpy_format(tensor) if saved else tensor.tobytes()
    answer = linear.post("/predict/batch", content=content, headers=headers)
    assert (
        answer.json()
        == linear.post("/predict/batch", files=form([encode(image) for image in tensor])).json()
    )


def test_failures_are_logged(linear: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """The log line of a batch has the number of images and the number of failed images."""
    with caplog.at_level("INFO", "service.access"):
        linear.post("/predict/batch", files=form([encode(images(1)[0]), b"no image", b"nor this"]))
    entry = caplog.records[-1].__dict__["request"]
    assert (entry["images"], entry["failed"]) == (3, 2)


def test_metrics_count_each_image(linear: TestClient) -> None:
    """A batch counts as one request, and each of its images as a prediction."""

    def counted() -> float:
        lines = linear.get("/metrics").text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith("service_predictions_total{")
        )

    before = counted()
    linear.post("/predict/batch", files=form([encode(image) for image in images(5)]))
    assert counted() == before + 5


@pytest.mark.parametrize(
    ("content", "shape", "said"),
    [
        (b"", None, "numpy.save"),
        (b"\x93NUMPY\x01\x00", None, "numpy.save"),
        (bytes(1200), "2,20", "shape is [2, 20]"),
        (bytes(1200), "2,30,20", "shape is [2, 30, 20]"),
        (b"", "0,20,30", "shape is [0, 20, 30]"),
        (bytes(1200), "3,20,30", "1200 bytes"),
        (bytes(1200), "two,20,30", "not a list of numbers"),
        (bytes(1200), "-2,20,30", "not a list of numbers"),
        (in_numpy_format(np.zeros((2, 20, 30), np.float32)), None, "float32"),
        (in_numpy_format(np.zeros((1, 20, 30), np.uint8)).replace(b"(1,", b"(True,", 1), None, ""),
        (
            in_numpy_format(np.zeros((1, 20, 30), np.uint8)).replace(b"\x01\x00", b"\x09\x09", 1),
            None,
            "numpy.save",
        ),
        (in_numpy_format(np.asfortranarray(np.zeros((2, 20, 30), np.uint8))), None, "by columns"),
        (in_numpy_format(np.zeros((2, 20, 30), np.uint8))[:-1], None, "1199 bytes"),
    ],
)
def test_wrong_tensor_is_rejected(
    linear: TestClient, content: bytes, shape: str | None, said: str
) -> None:
    """A tensor of a wrong type or shape is rejected; the detail says what was received."""
    headers = {"Content-Type": "application/octet-stream"} | (
        {} if shape is None else {"X-Shape": shape}
    )
    problem = assert_problem(
        linear.post("/predict/batch", content=content, headers=headers), 422, "unreadable-tensor"
    )
    assert said in problem["detail"]


@pytest.mark.parametrize(("fields", "status"), [(7, 200), (8, 400)])
def test_largest_form_has_room_for_seven_fields(
    linear: TestClient, fields: int, status: int
) -> None:
    """A form of as many images as are allowed may hold seven other fields, but not eight."""
    data = {f"field-{number}": "x" for number in range(fields)}
    images = form([b"x"] * MAX_BATCH_IMAGES)
    assert linear.post("/predict/batch", data=data, files=images).status_code == status


def test_batch_has_a_limit(linear: TestClient) -> None:
    """A request with too many images is rejected, as a tensor and as a form."""
    many = MAX_BATCH_IMAGES + 1
    headers = {"Content-Type": "application/octet-stream", "X-Shape": f"{many},20,30"}
    assert_problem(
        linear.post("/predict/batch", content=bytes(many * 600), headers=headers),
        422,
        "unreadable-tensor",
    )
    assert_problem(linear.post("/predict/batch", files=form([b"x"] * many)), 400, "malformed-form")
    assert_problem(
        linear.post("/predict/batch", data={"field": "x"}, files={"other": b"x"}),
        400,
        "malformed-form",
    )


@given(
    data=st.one_of(
        st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: b"\x93NUMPY" + tail)
    )
)
@settings(deadline=None)
def test_any_bytes_are_a_tensor_or_rejected(data: bytes) -> None:
    """Any bytes are rejected or read as images of the model's size."""
    with contextlib.suppress(UnreadableTensorError):
        assert read_tensor(data, None, [(2, 3)]).shape[1:] == (2, 3)


@given(count=st.integers(1, 5), height=st.integers(1, 9), width=st.integers(1, 9))
@settings(deadline=None)
def test_saved_tensor_is_read_as_it_was(count: int, height: int, width: int) -> None:
    """A tensor saved by numpy.save is read back value for value."""
    array = np.random.default_rng(count).integers(0, 256, (count, height, width), np.uint8)
    assert (read_tensor(in_numpy_format(array), None, [(height, width)]) == array).all()
