"""The JSON bodies of the API, and the query parameters of an upload.

The string below a field is its description in the OpenAPI document.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Schema(BaseModel):
    """Base of all bodies and queries."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class PredictionQuery(Schema):
    """The query parameters of an upload. An unknown one is an error, so that typos are noticed."""

    model_config = ConfigDict(extra="forbid")

    top_k: Annotated[int | None, Field(ge=1)] = None
    """Return only the k most likely classes, most likely first."""
    explain: bool = False
    """Add `explanation`: the image as the model saw it, and where a photo model looked."""
    coverage: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Add `prediction_set`, which contains the right class with at least this probability."""
    model: str | None = None
    """Name of the model that answers. If it is absent, the image decides."""


class Model(Schema):
    """Name and version of a model."""

    name: str
    version: str


class Explanation(Schema):
    """The image as the model saw it, and how it was made or where the model looked.

    `heat_map` is only for photo models, the fields after it only for grey models. `background`,
    `item_box` and `mask_quality` are also absent if the image was used unchanged.
    """

    image: str
    """The image as the model saw it: a PNG of the model's input size, in base64."""
    heat_map: str | None = None
    """Where the model saw signs of the answered class: `image` coloured from blue to yellow.

    A PNG in base64. Absent if the model has no output `activations`.
    """
    polarity: Literal["negated", "kept"] | None = None
    """`negated` if dark and light were swapped: the model expects a bright item on black."""
    mirrored: bool | None = None
    """Whether the item was mirrored, because its left half was brighter than its right half."""
    background: str | None = None
    """Colour of the background of the upload, as #rrggbb."""
    item_box: tuple[float, float, float, float] | None = None
    """Left, top, right and bottom of the item, as fractions of the upright image's size."""
    mask_quality: float | None = None
    """How clearly the colours separate item and background, 0 to 1. At 0 no item was found."""
    warnings: list[Literal["no item", "cut off", "cluttered", "worn"]] | None = None
    """Reasons to doubt the answer."""


class Prediction(Schema):
    """The answer for one image. The probabilities of all classes sum to 1."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "class_id": 9,
                "class_name": "Ankle boot",
                "probability": 0.997,
                "probabilities": {"Ankle boot": 0.997, "Sneaker": 0.003},
                "model": {"name": "garments", "version": "3"},
            }
        }
    )

    class_id: int
    """Index of the most likely class."""
    class_name: str
    """Name of the most likely class."""
    probability: float
    """Probability of the most likely class."""
    probabilities: dict[str, float]
    """Probability of each class by name, in label order; with `top_k`, most likely first."""
    explanation: Explanation | None = None
    """Only with `explain`."""
    distance: float | None = None
    """How unlike the training images the image is, on an arbitrary scale that can be negative.

    Absent if the model does not measure it.
    """
    in_distribution: bool | None = None
    """Whether `distance` is small enough for an image of the model's classes."""
    prediction_set: list[str] | None = None
    """Only with `coverage`. Most likely class first; empty if no class is likely enough."""
    model: Model
    """The model that answered."""


class Problem(Schema):
    """An error in the format of RFC 9457 (``application/problem+json``)."""

    type: str
    """Stable identifier of this kind of error."""
    title: str
    status: int
    detail: str
    """What was received, what is allowed, what to do."""
    request_id: str
    """Also in the header X-Request-ID and in the service's log."""


class Failure(Schema):
    """Why one image of a batch has no prediction."""

    index: int
    """Position of the image in the batch, from 0."""
    problem: Problem


class BatchPrediction(Schema):
    """The answer to a batch: a prediction or a failure for each image, in the order sent."""

    predictions: list[Prediction | Failure]


class InputFormat(Schema):
    """The format of the model's own input. The service converts every uploaded image to it."""

    height: int
    """In pixels."""
    width: int
    """In pixels."""
    preprocessing: str
    """Name of the rules that convert an uploaded image."""


class ModelDetails(Model):
    """A model that is served, with its classes, input and metrics."""

    class_names: list[str]
    """In label order."""
    input: InputFormat
    coverage_range: tuple[float, float] | None
    """Lowest and highest `coverage` that the model offers; null if it has no prediction sets."""
    metrics: dict[str, Any]
    """The measurements in the model card, such as the accuracy."""


class Models(Schema):
    """The models that are served."""

    models: list[ModelDetails]


class ModelHealth(Schema):
    """Whether a model is ready, and what it runs on."""

    name: str
    """Name of the model; of its folder until the model is loaded."""
    version: str | None = None
    """Null while the model is not loaded."""
    status: Literal["starting", "ready", "draining", "failed"]
    device: Literal["cuda", "cpu"] | None = None
    """Where inference runs; null while the model is not loaded."""
    providers: list[str]
    """ONNX Runtime's execution providers, as the session reports them."""


class Health(Schema):
    """Whether the service accepts uploads, and what its models run on."""

    status: Literal["starting", "ready", "draining", "failed"]
    """`ready` if every model is ready."""
    models: list[ModelHealth]
    """In the order of `SERVICE_MODELS`."""
    uptime_seconds: float
    """Seconds since this process started."""


class Liveness(Schema):
    """Says that the process runs."""

    status: Literal["alive"] = "alive"
