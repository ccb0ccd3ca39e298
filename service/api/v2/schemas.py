"""The JSON bodies of the Open Inference Protocol, version 2.

The protocol's text: github.com/kserve/open-inference-protocol, specification/protocol. The
extension for binary tensors: github.com/triton-inference-server/server,
docs/protocol/extension_binary_data.md. The string below a field is its description in the OpenAPI
document.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from service.api.schemas import Schema

MAX_FIELDS = 16  # of one JSON object; each unknown field is an error that takes memory
MAX_DIMENSION = 2**31 - 1
MAX_ID_CHARACTERS = 1000

Datatype = Literal["UINT8", "INT64", "FP32", "BOOL", "BYTES"]
ContentType = Literal["np", "base64"]


class ServerMetadata(Schema):
    """Name and version of this service, and the extensions of the protocol that it supports."""

    name: str = "fashion-classifier"
    version: str
    extensions: tuple[str, ...] = ("binary_tensor_data",)


class ServerLive(Schema):
    """Says that the process runs."""

    live: bool = True


class ServerReady(Schema):
    """Says that every model is ready and the service accepts requests."""

    ready: bool = True


class ModelReady(Schema):
    """Says that a model is ready."""

    name: str
    ready: bool = True


class TensorMetadata(Schema):
    """Name, type and shape of an input or output. A dimension of any size is -1."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(Schema):
    """A model that is served, with its input and its outputs."""

    name: str
    versions: list[str]
    platform: str = "onnx_onnxv1"
    inputs: list[TensorMetadata]
    """The input `image` also takes BYTES `[-1]`: encoded image files."""
    outputs: list[TensorMetadata]


class ErrorBody(Schema):
    """An error in the format of the protocol."""

    error: str


class RequestPart(Schema):
    """Base of the parts of a request. An unknown field is an error, so that none is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _limit_fields(cls, part: Any) -> Any:
        if isinstance(part, dict) and len(part) > MAX_FIELDS:
            raise ValueError(f"has {len(part)} fields; at most {MAX_FIELDS} are allowed")
        return part


class RequestParameters(RequestPart):
    """The parameters of a request.

    `priority` and `timeout` have no effect: they do not change an answer, and the service has its
    own deadline.
    """

    binary_data_output: bool = False
    """Send all outputs as binary data."""
    content_type: ContentType | None = None
    """MLServer's name for how the input is encoded: `np` for UINT8, `base64` for BYTES."""
    priority: int | None = None
    timeout: int | None = None


class InputParameters(RequestPart):
    """The parameters of an input."""

    binary_data_size: Annotated[int | None, Field(ge=0)] = None
    """Bytes of the input, which follow the JSON. Absent if the input is in `data`."""
    content_type: ContentType | None = None
    """As in the parameters of the request."""


class OutputParameters(RequestPart):
    """The parameters of an output."""

    binary_data: bool | None = None
    """Send this output as binary data. It overrides `binary_data_output`."""


class InputTensor(RequestPart):
    """The images to classify."""

    name: Literal["image"]
    datatype: Literal["UINT8", "BYTES"]
    """UINT8: pixels in the size of the model's input. BYTES: encoded image files."""
    shape: Annotated[
        list[Annotated[int, Field(ge=0, le=MAX_DIMENSION)]], Field(min_length=1, max_length=4)
    ]
    """`[N, height, width]` or `[N, height, width, 3]` of pixels, `[N]` or `[N, 1]` of files."""
    parameters: InputParameters | None = None
    data: list[Any] | None = None
    """Pixels, flat or nested like `shape`, or files in base64. Absent if the data is binary."""


class RequestedOutput(RequestPart):
    """An output that the answer shall have."""

    name: str
    parameters: OutputParameters | None = None


class InferenceRequest(RequestPart):
    """Images to classify, and the outputs that the answer shall have."""

    id: Annotated[str | None, Field(max_length=MAX_ID_CHARACTERS)] = None
    """The answer repeats it."""
    model_name: str | None = None
    """The name in the path, if it is sent at all."""
    model_version: str | None = None
    """The version that answers, if it is sent at all."""
    parameters: RequestParameters | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[RequestedOutput] | None, Field(max_length=MAX_FIELDS)] = None
    """Absent or empty: all outputs."""


class BinarySize(Schema):
    """Says that an output follows the JSON as binary data."""

    binary_data_size: int
    """In bytes."""


class OutputTensor(TensorMetadata):
    """One output. Its values are in `data`, or follow the JSON as binary data."""

    parameters: BinarySize | None = None
    data: list[Any] | None = None
    """In row-major order, flat."""


class InferenceResponse(Schema):
    """The outputs for all images of a request."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    """The id of the request, if it has one."""
    outputs: list[OutputTensor]
