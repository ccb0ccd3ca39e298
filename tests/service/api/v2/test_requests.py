"""Inference requests that are damaged or hostile: a 4xx, never a 5xx, little memory and time."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from service.api.v2.requests import MAX_JSON_VALUES, read_request
from service.errors import InvalidInferenceRequestError
from service.imaging.tensors import MAX_BATCH_IMAGES
from tests.service.api.v2.wire import JSON_LENGTH, assert_error, binary_tensor, files, join, tensor
from tests.service.images import noise

IMAGES = np.stack([noise(20, 30, seed) for seed in range(2)])
INFER = "/v2/models/linear/infer"
MEGABYTE = 2**20


def body(*inputs: dict[str, Any], **fields: Any) -> bytes:
    """Return the JSON of a request with these inputs."""
    return json.dumps({"inputs": list(inputs), **fields}).encode()


VALID = body(tensor(IMAGES))
BINARY = body(binary_tensor(IMAGES))


def nested(data: Any, **fields: Any) -> bytes:
    """Return a request for two images of 20 x 30 with this ``data``."""
    return body(tensor(IMAGES, data=data, **fields))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"[]", "the request is not valid"),
        (b"{", "not valid JSON"),
        (b"\xff{}", "not valid JSON"),
        (b"{}", "inputs: Field required"),
        (b"[" * 100_000, "recursion limit"),
        (body(), "inputs: List should have at least 1 item"),
        (body(tensor(IMAGES), tensor(IMAGES)), "inputs: List should have at most 1 item"),
        (body(tensor(IMAGES, name="picture")), "inputs.0.name: Input should be 'image'"),
        (body(tensor(IMAGES, datatype="FP32")), "inputs.0.datatype"),
        (body(tensor(IMAGES, data=None)), "has no data"),
        (body(tensor(IMAGES, extra=1)), "inputs.0.extra: Extra inputs are not permitted"),
        (body(tensor(IMAGES, parameters={"shared_memory_region": "a"})), "shared_memory_region"),
        (body(tensor(IMAGES), output=[]), "output: Extra inputs"),
        (body(tensor(IMAGES), id=7), "id: Input should be a valid string"),
        (body(tensor(IMAGES), id="x" * 1001), "id: String should have at most"),
        (body(tensor(IMAGES), **{f"f{n}": 0 for n in range(99)}), "100 fields; at most 16"),
        (body(tensor(IMAGES), outputs=[{"name": "logits"}]), "'logits' is unknown or named twice"),
        (body(tensor(IMAGES), outputs=[{"name": "class_id"}] * 2), "'class_id' is unknown or"),
        (body(tensor(IMAGES), outputs=[{"name": "class_id"}] * 17), "outputs: List should have"),
        (body(tensor(IMAGES, shape=[])), "inputs.0.shape"),
        (body(tensor(IMAGES, shape=[2, -20, -30])), "inputs.0.shape.1"),
        (body(tensor(IMAGES, shape=[2.0, 20, 30])), "inputs.0.shape.0"),
        (body(tensor(IMAGES, shape=[2**64, 20, 30])), "inputs.0.shape.0"),
        (body(tensor(IMAGES, shape=[3, 20, 30])), "not nested like the shape [3, 20, 30]"),
        (nested([[[0] * 30] * 20, [[0] * 30] * 19 + [[0] * 29]]), "not nested like the shape"),
        (nested([[[0] * 30] * 20, 7]), "not nested like the shape"),
        (nested([0.5] * 1200), "not UINT8"),
        (nested([True] * 1200), "not UINT8"),
        (nested([256] * 1200), "not UINT8"),
        (nested([-1] * 1200), "not UINT8"),
        (nested([10**30] * 1200), "not UINT8"),
        (nested([None] * 1200), "not UINT8"),
        (nested([]), "not a tensor of shape"),
        (VALID.replace(b"[[[", b"[[[NaN,", 1), "not valid JSON"),
        (VALID.replace(b"[[[", b"[[[1e999,", 1), ""),
        (body(files([], shape=[0])), "with N from 1 to 1024"),
        (body(files(["aGk="], shape=[2])), "data has 1 elements"),
        (body(files(["aGk="], shape=[1, 2])), "send [N] for BYTES"),
        (body(files(["aGk="] * (MAX_BATCH_IMAGES + 1))), "with N from 1 to 1024"),
        (body(files(["no base64"])), "index 0 is not base64"),
        (body(files(["aGk=", 7])), "index 1 is not base64"),  # type: ignore[list-item]
    ],
)
def test_wrong_json_is_rejected(linear: TestClient, content: bytes, said: str) -> None:
    """A request that breaks a rule gets a 4xx that says which."""
    response = linear.post(INFER, content=content)
    assert response.status_code in (400, 422)
    assert_error(response, response.status_code, said)


@pytest.mark.parametrize(
    ("content", "length", "said"),
    [
        (BINARY + IMAGES.tobytes(), "-5", "'-5'"),
        (BINARY + IMAGES.tobytes(), "+5", "'+5'"),
        (BINARY + IMAGES.tobytes(), "", "''"),
        (BINARY + IMAGES.tobytes(), "9" * 5000, "'999"),
        (BINARY + IMAGES.tobytes(), str(len(BINARY) + 1), "not valid JSON"),
        (BINARY + IMAGES.tobytes(), str(len(BINARY) - 1), "not valid JSON"),
        (BINARY + IMAGES.tobytes(), "100000", "the body has"),
        (BINARY, str(len(BINARY)), "binary_data_size is 1200, but 0 bytes"),
        (BINARY + IMAGES.tobytes()[1:], str(len(BINARY)), "but 1199 bytes follow"),
        (BINARY + IMAGES.tobytes() * 2, str(len(BINARY)), "but 2400 bytes follow"),
        (VALID + b"1", str(len(VALID)), "1 bytes follow the JSON"),
    ],
)
def test_length_that_lies_is_rejected(
    linear: TestClient, content: bytes, length: str, said: str
) -> None:
    """A length of the JSON or of the binary data that does not fit the body gets a 400."""
    assert_error(linear.post(INFER, content=content, headers={JSON_LENGTH: length}), 400, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "index 1 ends before its 5 bytes"),
        (lambda data: data + b"\0", "1 bytes follow the last of 2 images"),
        (lambda data: b"\xff\xff\xff\xff" + data[4:], "index 0 ends before its 4294967295 bytes"),
        (lambda data: data[:6], "index 1 ends before"),
        (lambda data: data[:0], "index 0 ends before"),
    ],
)
def test_binary_files_must_fill_the_tensor(change: Callable[[bytes], bytes], said: str) -> None:
    """The lengths in a binary BYTES tensor must fit its size and its number of files."""
    data = change(join([b"ab", b"cdefg"]))
    described = files([], shape=[2], data=None, parameters={"binary_data_size": len(data)})
    text = body(described)
    with pytest.raises(InvalidInferenceRequestError, match=said):
        read_request(text + data, str(len(text)))


@given(uploads=st.lists(st.binary(max_size=50), min_size=1, max_size=9), is_binary=st.booleans())
@settings(deadline=None)
def test_files_are_read_as_they_were(uploads: list[bytes], is_binary: bool) -> None:
    """Files of any content are read back byte for byte, from base64 and from binary data."""
    binary = join(uploads) if is_binary else b""
    described = files([base64.b64encode(upload).decode() for upload in uploads])
    if is_binary:
        described |= {"data": None, "parameters": {"binary_data_size": len(binary)}}
    text = body(described)
    assert read_request(text + binary, str(len(text))).images == uploads


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=9), children, max_size=4)
    ),
    max_leaves=20,
)
DIMENSIONS = st.sampled_from([0, 1, 2, 20, 30, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, -1]) | (
    st.integers()
)
SIZES = st.integers(-1, 1300) | st.sampled_from([2**31, 2**63, 2**64, 10**400])
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("image") | st.text(max_size=5),
        "datatype": st.sampled_from(["UINT8", "BYTES", "FP32", ""]),
        "shape": st.just([2, 20, 30]) | st.lists(DIMENSIONS, max_size=5) | JSON_VALUES,
        "parameters": st.fixed_dictionaries({"binary_data_size": SIZES}) | JSON_VALUES,
        "data": st.just([0] * 1200) | JSON_VALUES,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(INPUTS, max_size=3) | JSON_VALUES},
    optional={
        "id": JSON_VALUES,
        "parameters": st.fixed_dictionaries({"binary_data_output": JSON_VALUES}) | JSON_VALUES,
        "outputs": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from(["class_id", "probabilities", "x"])})
        )
        | JSON_VALUES,
    },
)
LENGTHS = st.none() | st.integers(-2, 2000).map(str) | st.text("0123456789-+. x", max_size=30)


@given(request=REQUESTS, binary=st.binary(max_size=30), length=LENGTHS, honest=st.booleans())
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_request_is_answered_or_rejected(
    linear: TestClient, request: Any, binary: bytes, length: str | None, honest: bool
) -> None:
    """Any JSON, lengths, shapes and binary data get an answer or a 4xx, never a 5xx."""
    text = json.dumps(request).encode()
    declared = str(len(text)) if honest else length
    headers = {} if declared is None else {JSON_LENGTH: declared}
    response = linear.post(INFER, content=text + binary, headers=headers)
    if response.status_code != 200:
        assert 400 <= response.status_code < 500
        assert_error(response, response.status_code)


@given(content=st.binary(max_size=200), length=LENGTHS)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rejected(linear: TestClient, content: bytes, length: str | None) -> None:
    """Any bytes that are not a request get a 400."""
    headers = {} if length is None else {JSON_LENGTH: length}
    assert_error(linear.post(INFER, content=content, headers=headers), 400)


LARGE = {
    "numbers": b'{"inputs":[' + b"1," * (5 * MEGABYTE),
    "floats": b'{"inputs":[' + b"1.5," * (MEGABYTE * 5 // 2),
    "objects": b'{"inputs":[' + b"{}," * (MEGABYTE * 10 // 3),
    "lists": b'{"inputs":[' + b"[]," * (MEGABYTE * 10 // 3),
    "brackets": b"[" * (10 * MEGABYTE),
    "fields": b"{" + b",".join(b'"%d":0' % number for number in range(MEGABYTE)),
    "digits": b"1" * (10 * MEGABYTE),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_json_takes_little_memory(name: str) -> None:
    """Ten megabytes of small JSON values are rejected before they become Python objects."""
    tracemalloc.start()
    started = time.thread_time()
    with pytest.raises(InvalidInferenceRequestError):
        read_request(LARGE[name], None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEGABYTE
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("value", [b"0", b"1.5", b'"ab"', b"{}", b"[]"])
def test_many_values_take_bounded_memory(value: bytes) -> None:
    """As many values as are allowed take a few times the memory of the largest body."""
    starts = 2 if value in (b"{}", b"[]") else 1  # of a value, with the comma before it
    values = b",".join([value] * ((MAX_JSON_VALUES - 100) // starts))
    text = b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[1],"data":[%b]}]}' % values
    tracemalloc.start()
    with contextlib.suppress(InvalidInferenceRequestError):
        read_request(text, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * MEGABYTE


def test_largest_batch_fits_into_json() -> None:
    """1,024 images of 28 x 28 are read from JSON, nested and flat."""
    images = np.random.default_rng(1).integers(0, 256, (MAX_BATCH_IMAGES, 28, 28), np.uint8)
    for data in (images.tolist(), images.ravel().tolist()):
        read = read_request(body(tensor(images, data=data)), None)
        assert read.images == images.tobytes()
        assert read.shape == "1024,28,28"
