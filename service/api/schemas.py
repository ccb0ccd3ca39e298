"""Own the wire types: what goes over HTTP as JSON, and the query of a prediction."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class PredictionQuery(BaseModel):
    """The query of ``POST /predict``; a parameter that is not listed is an error, so that a typo is not ignored."""

    model_config = ConfigDict(extra="forbid")

    top_k: Annotated[
        int | None,
        Field(ge=1, description="Return the k most likely classes only, most likely first."),
    ] = None
    explain: Annotated[
        bool, Field(description="Return `explanation` too: what the model saw of the image.")
    ] = False
    coverage: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="Return `prediction_set` too, which holds the truth with at least this probability.",
        ),
    ] = None


class Model(BaseModel):
    """The model that answers."""

    name: str
    version: str


class Explanation(BaseModel):
    """What the model saw of an image. Of one that was taken as it is, background, box and quality are absent."""

    image: Annotated[
        str, Field(description="What the model saw: a grey PNG of the model's size, in base64.")
    ]
    polarity: Annotated[
        Literal["negated", "kept"],
        Field(
            description="Whether dark and light were exchanged; the models know a bright item on black."
        ),
    ]
    mirrored: Annotated[
        bool,
        Field(
            description="Whether the item was mirrored, which is done to what is heavier on its left."
        ),
    ]
    background: Annotated[str | None, Field(description="Colour of the ground, #rrggbb.")] = None
    item_box: Annotated[
        tuple[float, float, float, float] | None,
        Field(
            description="Left, top, right and bottom of the item, in shares of the upright image's width and height."
        ),
    ] = None
    mask_quality: Annotated[
        float | None,
        Field(
            description="0 to 1: how clearly the colours part item and ground; at 0 no item was found, and the whole "
            "image was taken."
        ),
    ] = None
    warnings: Annotated[
        list[Literal["no item", "cut off", "cluttered", "worn"]],
        Field(description="What speaks against a right answer."),
    ]


class ImagePrediction(BaseModel):
    """What the model says of one image. ``probabilities`` are a softmax: over all classes they sum to 1."""

    class_id: Annotated[int, Field(description="Index of the most likely class.")]
    class_name: Annotated[str, Field(description="Name of the most likely class.")]
    probability: Annotated[float, Field(description="Probability of the most likely class.")]
    probabilities: Annotated[
        dict[str, float],
        Field(
            description="Probability by class name, in label order; with `top_k` the k most likely, best first."
        ),
    ]
    explanation: Annotated[Explanation | None, Field(description="With `explain`.")] = None
    distance: Annotated[
        float | None,
        Field(
            description="How far the image is from the nearest class, of a model that tells; only its order counts."
        ),
    ] = None
    in_distribution: Annotated[
        bool | None,
        Field(description="Whether the distance is one that images of the classes have."),
    ] = None
    prediction_set: Annotated[
        list[str] | None,
        Field(
            description="With `coverage`, the classes that hold the truth with that probability, best first. "
            "It is empty if none is likely enough."
        ),
    ] = None


class Prediction(ImagePrediction):
    """The answer to one image."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "class_id": 9,
                "class_name": "Ankle boot",
                "probability": 0.997,
                "probabilities": {"Ankle boot": 0.997, "Sneaker": 0.003},
                "model": {"name": "resnet-8-photos", "version": "1"},
            }
        }
    )

    model: Model


class Problem(BaseModel):
    """An error, in the form of RFC 9457 (``application/problem+json``)."""

    type: Annotated[str, Field(description="Stable name of this kind of error.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What was got, what is allowed, what to do.")]
    request_id: Annotated[
        str, Field(description="Also in the header X-Request-ID and in the service's log.")
    ]


class Failure(BaseModel):
    """Why one image of a batch has no prediction."""

    index: Annotated[int, Field(description="Place of the image in the batch, from 0.")]
    problem: Problem


class BatchPrediction(BaseModel):
    """The answer to a batch: for each image, in the order that they came in, a prediction or a failure."""

    model: Model
    predictions: list[ImagePrediction | Failure]


class InputFormat(BaseModel):
    """What the model itself takes; any image that is uploaded is brought into this form."""

    height: Annotated[int, Field(description="In pixels.")]
    width: Annotated[int, Field(description="In pixels.")]
    preprocessing: Annotated[
        str, Field(description="Name of the rule that brings other images into this form.")
    ]


class ModelDetails(Model):
    """The model that answers, and what was measured of it."""

    class_names: Annotated[list[str], Field(description="In label order.")]
    input: InputFormat
    metrics: Annotated[dict[str, Any], Field(description="The figures of the model's card.")]


class Models(BaseModel):
    """The models that answer."""

    models: list[ModelDetails]


class Health(BaseModel):
    """Whether the service takes traffic, and what it really runs on."""

    status: Literal["starting", "ready", "draining", "failed"]
    model: Annotated[Model | None, Field(description="Absent until the model is loaded.")] = None
    device: Annotated[Literal["cuda", "cpu"] | None, Field(description="Where inference runs.")] = (
        None
    )
    providers: Annotated[
        list[str], Field(description="ONNX Runtime's execution providers as the session has them.")
    ]
    uptime_seconds: Annotated[
        float, Field(description="Seconds since the process started to serve.")
    ]


class Liveness(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"
