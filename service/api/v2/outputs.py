"""The outputs of a model, and the answer that holds them. Knows nothing about HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from service.api.v2.requests import LENGTH_BYTES
from service.api.v2.schemas import (
    BinarySize,
    Datatype,
    InferenceRequest,
    InferenceResponse,
    OutputParameters,
    OutputTensor,
    RequestedOutput,
    TensorMetadata,
)
from service.errors import InvalidInferenceRequestError
from service.inference.classification import Classification
from service.inference.classifier import Classifier

# The extension for binary data asks for little-endian.
NUMPY_TYPES = {"FP32": "<f4", "INT64": "<i8", "BOOL": "?"}


def list_outputs(classifier: Classifier) -> list[TensorMetadata]:
    """Return the outputs of a model. Each is named like the field of ``Classification``."""
    classes = len(classifier.manifest.class_names)
    rows: list[tuple[str, Datatype, list[int]]] = [
        ("probabilities", "FP32", [-1, classes]),
        ("class_id", "INT64", [-1]),
        ("class_name", "BYTES", [-1]),
    ]
    if "distance" in classifier.outputs:
        rows += [("distance", "FP32", [-1]), ("in_distribution", "BOOL", [-1])]
    if "activations" in classifier.outputs:
        rows.append(("activations", "FP32", [-1, classes, -1, -1]))
    return [TensorMetadata(name=name, datatype=kind, shape=shape) for name, kind, shape in rows]


def choose_outputs(
    request: InferenceRequest, available: Sequence[TensorMetadata]
) -> list[tuple[TensorMetadata, bool]]:
    """Return the outputs of the answer, and whether each is sent as binary data.

    Raises:
        InvalidInferenceRequestError: The model has no such output, or one is named twice.
    """
    by_name = {output.name: output for output in available}
    requested = request.outputs or [RequestedOutput(name=name) for name in by_name]
    names = [output.name for output in requested]
    for name in names:
        if name not in by_name or names.count(name) > 1:
            raise InvalidInferenceRequestError(
                f"the output {name[:100]!r} is unknown or named twice; send each name once, of "
                f"{', '.join(by_name)}"
            )
    is_binary = request.parameters is not None and request.parameters.binary_data_output
    chosen = []
    for output in requested:
        own = (output.parameters or OutputParameters()).binary_data
        chosen.append((by_name[output.name], is_binary if own is None else own))
    return chosen


def write_response(
    request: InferenceRequest,
    outputs: Sequence[tuple[TensorMetadata, bool]],
    answers: Sequence[Classification],
) -> tuple[bytes, bytes]:
    """Return the JSON of the answer, and the binary data that follows it."""
    written = [
        _write_output(output, [getattr(each, output.name) for each in answers], is_binary)
        for output, is_binary in outputs
    ]
    manifest = answers[0].manifest
    response = InferenceResponse(
        model_name=manifest.name,
        model_version=manifest.version,
        id=request.id,
        outputs=[tensor for tensor, _ in written],
    )
    binary = b"".join(binary for _, binary in written)
    return response.model_dump_json(exclude_none=True).encode(), binary


def _write_output(
    output: TensorMetadata, values: list[Any], is_binary: bool
) -> tuple[OutputTensor, bytes]:
    """Return a tensor, and its values as binary data if they are not in the tensor."""
    kind = output.datatype
    array = None if kind == "BYTES" else np.array(values, NUMPY_TYPES[kind])
    shape = [len(values)] if array is None else list(array.shape)
    tensor = OutputTensor(name=output.name, datatype=kind, shape=shape)
    if not is_binary:
        tensor.data = values if array is None else array.ravel().tolist()
        return tensor, b""
    binary = _join(values) if array is None else array.tobytes()
    tensor.parameters = BinarySize(binary_data_size=len(binary))
    return tensor, binary


def _join(texts: list[str]) -> bytes:
    """Return the binary data of a BYTES tensor: each element with its length in front."""
    elements = [text.encode() for text in texts]
    return b"".join(len(each).to_bytes(LENGTH_BYTES, "little") + each for each in elements)
