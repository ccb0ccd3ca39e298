"""Requests and answers of the Open Inference Protocol, written and read without the service."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import numpy as np
from numpy.typing import NDArray
from starlette.testclient import TestClient

JSON_LENGTH = "Inference-Header-Content-Length"
NUMPY_TYPES = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_}


def tensor(images: NDArray[np.uint8], **fields: Any) -> dict[str, Any]:
    """Describe pixels as an input tensor, with its data in the JSON unless ``fields`` differ."""
    shape = list(images.shape)
    return {"name": "image", "datatype": "UINT8", "shape": shape, "data": images.tolist()} | fields


def binary_tensor(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Describe pixels as an input tensor whose data follows the JSON."""
    described = tensor(images, parameters={"binary_data_size": images.size})
    del described["data"]
    return described


def files(uploads: list[str], **fields: Any) -> dict[str, Any]:
    """Describe files in base64 as an input tensor."""
    described = {"name": "image", "datatype": "BYTES", "shape": [len(uploads)], "data": uploads}
    return described | fields


def join(uploads: list[bytes]) -> bytes:
    """Join files to the binary data of a BYTES tensor."""
    return b"".join(len(upload).to_bytes(4, "little") + upload for upload in uploads)


def infer(
    client: TestClient, model: str, request: dict[str, Any], binary: bytes = b""
) -> httpx2.Response:
    """Send a request, with ``binary`` after the JSON if there is any."""
    text = json.dumps(request).encode()
    headers = {JSON_LENGTH: str(len(text))} if binary else {}
    return client.post(f"/v2/models/{model}/infer", content=text + binary, headers=headers)


def outputs(response: httpx2.Response) -> dict[str, Any]:
    """Read the outputs of an answer: arrays in their shape, lists of strings for BYTES."""
    assert response.status_code == 200, response.text
    end = int(response.headers.get(JSON_LENGTH, len(response.content)))
    binary = response.content[end:]
    found: dict[str, Any] = {}
    for output in json.loads(response.content[:end])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = _shaped(output, output["data"])
            continue
        assert "data" not in output
        own, binary = binary[:size], binary[size:]
        assert len(own) == size
        values = _split(own) if output["datatype"] == "BYTES" else _numbers(output, own)
        found[output["name"]] = _shaped(output, values)
    assert not binary
    return found


def assert_error(response: httpx2.Response, status: int, said: str = "") -> None:
    """Check that an answer is an error of the protocol whose text contains ``said``."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    assert said in response.json()["error"], response.text


def _numbers(output: dict[str, Any], binary: bytes) -> NDArray[Any]:
    return np.frombuffer(binary, NUMPY_TYPES[output["datatype"]])


def _shaped(output: dict[str, Any], values: Any) -> Any:
    if output["datatype"] == "BYTES":
        assert output["shape"] == [len(values)]
        return values
    array: NDArray[Any] = np.array(values, NUMPY_TYPES[output["datatype"]])
    return array.reshape(output["shape"])


def _split(binary: bytes) -> list[str]:
    values = []
    while binary:
        end = 4 + int.from_bytes(binary[:4], "little")
        values.append(binary[4:end].decode())
        binary = binary[end:]
    return values
