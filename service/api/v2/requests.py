"""Reads an inference request: JSON, and after it perhaps binary data. Knows nothing about HTTP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from service.api.v2.schemas import InferenceRequest, InputParameters, InputTensor
from service.errors import InvalidInferenceRequestError
from service.imaging.tensors import MAX_BATCH_IMAGES

# The parser holds the GIL. A million values take it 20 to 60 ms and 8 to 40 MB. 1,024 images of
# 28 x 28 have fewer values.
MAX_JSON_VALUES = 1_000_000
VALUE_STARTS = (b",", b"[", b"{", b":")
MAX_LENGTH_DIGITS = 12
MAX_FAULTS = 3  # that one message describes
PART_VALUES = 32_768  # other threads run between two parts of a tensor
LENGTH_BYTES = 4  # of the length before each element of a binary BYTES tensor
CONTENT_TYPES = {"UINT8": "np", "BYTES": "base64"}


@dataclass(frozen=True)
class ReadRequest:
    """An inference request with its images: the pixels of a UINT8 tensor, or encoded files."""

    request: InferenceRequest
    images: bytes | list[bytes]

    @property
    def shape(self) -> str:
        """The shape of the tensor, such as "2,28,28"."""
        return ",".join(map(str, self.request.inputs[0].shape))


def read_request(body: bytes, json_length: str | None) -> ReadRequest:
    """Read a request. ``json_length`` is the header ``Inference-Header-Content-Length``.

    Raises:
        InvalidInferenceRequestError: The request breaks a rule of the protocol.
    """
    end = len(body) if json_length is None else _parse_length(json_length, len(body))
    request = _read_json(body[:end])
    tensor = request.inputs[0]
    parameters = tensor.parameters or InputParameters()
    general = request.parameters.content_type if request.parameters else None
    for content_type in (general, parameters.content_type):
        if content_type not in (None, CONTENT_TYPES[tensor.datatype]):
            raise InvalidInferenceRequestError(
                f"the content_type {content_type!r} does not fit {tensor.datatype}; "
                f"send {CONTENT_TYPES[tensor.datatype]!r} or leave it out"
            )
    if parameters.binary_data_size is None:
        return ReadRequest(request, _read_data(tensor, len(body) - end))
    if tensor.data is not None:
        raise InvalidInferenceRequestError(
            "the input image has data and binary_data_size; send one of them"
        )
    if parameters.binary_data_size != len(body) - end:
        raise InvalidInferenceRequestError(
            f"binary_data_size is {parameters.binary_data_size}, but {len(body) - end} bytes "
            "follow the JSON; send as many as it says, and the length of the JSON in the header "
            "Inference-Header-Content-Length"
        )
    if tensor.datatype == "UINT8":
        return ReadRequest(request, body[end:])
    return ReadRequest(request, list(_split(body, end, _count_files(tensor))))


def _parse_length(text: str, body_bytes: int) -> int:
    is_number = text.isdecimal() and len(text) <= MAX_LENGTH_DIGITS
    if not is_number or int(text) > body_bytes:
        raise InvalidInferenceRequestError(
            f"Inference-Header-Content-Length is {text[:100]!r}, but the body has {body_bytes} "
            "bytes; send the number of bytes of the JSON"
        )
    return int(text)


def _read_json(text: bytes) -> InferenceRequest:
    if len(text) > MAX_JSON_VALUES and sum(map(text.count, VALUE_STARTS)) > MAX_JSON_VALUES:
        raise InvalidInferenceRequestError(
            f"the JSON has more than {MAX_JSON_VALUES} values; send the images as binary data "
            "(binary_data_size), or fewer images"
        )
    try:
        return InferenceRequest.model_validate(from_json(text, allow_inf_nan=False))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        described = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:MAX_FAULTS]
        )
        raise InvalidInferenceRequestError(f"the request is not valid: {described}") from error
    except ValueError as error:
        raise InvalidInferenceRequestError(
            f"the first {len(text)} bytes of the body are not valid JSON: {error}"
        ) from error


def _read_data(tensor: InputTensor, extra_bytes: int) -> bytes | list[bytes]:
    """Return the images of a tensor that is in the JSON."""
    if extra_bytes:
        raise InvalidInferenceRequestError(
            f"{extra_bytes} bytes follow the JSON, but the input image has no binary_data_size; "
            "set it, or send only the JSON"
        )
    if tensor.data is None:
        raise InvalidInferenceRequestError(
            "the input image has no data; send data, or binary data and binary_data_size"
        )
    if tensor.datatype == "UINT8":
        return _pack(_flatten(tensor.data, tensor.shape))
    count = _count_files(tensor)
    values = _flatten(tensor.data, tensor.shape)
    if len(values) != count:
        raise InvalidInferenceRequestError(
            f"the shape of the input image is {tensor.shape}, but data has {len(values)} elements"
        )
    return [_decode(index, value) for index, value in enumerate(values)]


def _flatten(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Return the elements of a list that is flat, or nested exactly like ``shape``."""
    if not data or type(data[0]) is not list:
        return data
    level: list[Any] = [data]
    for size in shape:
        if any(type(part) is not list or len(part) != size for part in level):
            raise InvalidInferenceRequestError(
                f"the lists in data are not nested like the shape {list(shape)}; send them so, or "
                "one flat list"
            )
        level = list(chain.from_iterable(level))
    return level


def _pack(values: list[Any]) -> bytes:
    starts = range(0, len(values), PART_VALUES)
    return b"".join(_pack_part(values[start : start + PART_VALUES]) for start in starts)


def _pack_part(values: list[Any]) -> bytes:
    try:
        if set(map(type, values)) == {int}:
            return bytes(values)
    except (ValueError, OverflowError):  # a number is not between 0 and 255
        pass
    raise InvalidInferenceRequestError(
        "data has an element that is not UINT8; send whole numbers from 0 to 255"
    )


def _count_files(tensor: InputTensor) -> int:
    """Return the number of files. MLServer's clients send the shape ``[N, 1]`` for ``[N]``."""
    count = tensor.shape[0]
    if tensor.shape not in ([count], [count, 1]) or not 1 <= count <= MAX_BATCH_IMAGES:
        raise InvalidInferenceRequestError(
            f"the shape of the input image is {tensor.shape}; send [N] for BYTES, with N from 1 to "
            f"{MAX_BATCH_IMAGES}"
        )
    return count


def _decode(index: int, value: Any) -> bytes:
    try:
        if type(value) is str:
            return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        pass
    raise InvalidInferenceRequestError(
        f"the image at index {index} is not base64; send the bytes of a file in base64"
    )


def _split(body: bytes, start: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` elements of a binary BYTES tensor: each has its length in front."""
    for index in range(count):
        end = start + LENGTH_BYTES
        length = int.from_bytes(body[start:end], "little")
        start = end + length
        if start > len(body):
            raise InvalidInferenceRequestError(
                f"the image at index {index} ends before its {length} bytes; put the length of "
                "each image before it, in 4 bytes, little-endian"
            )
        yield body[end:start]
    if start != len(body):
        raise InvalidInferenceRequestError(
            f"{len(body) - start} bytes follow the last of {count} images; send one length and one "
            "file for each image of the shape"
        )
