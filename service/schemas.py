"""Own the wire types: what goes over HTTP as JSON, and the query of a prediction."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class PredictionQuery(BaseModel):
    """The query of ``POST /predict``; a parameter that is not listed is an error, so that a typo is not ignored."""

    model_config = ConfigDict(extra="forbid")

    top_k: Annotated[
        int | None, Field(ge=1, description="Return the k most likely classes only, most likely first.")
    ] = None
    coverage: Annotated[
        float | None,
        Field(
            gt=0, lt=1, description="Return `prediction_set` too, which holds the truth with at least this probability."
        ),
    ] = None


class Model(BaseModel):
    """The model that answers."""

    name: str
    version: str


class Prediction(BaseModel):
    """The answer to one image. ``probabilities`` are a softmax: over all classes they sum to 1."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "class_id": 9,
                "class_name": "Ankle boot",
                "probability": 0.997,
                "probabilities": {"Ankle boot": 0.997, "Sneaker": 0.003},
                "model": {"name": "resnet-8", "version": "1"},
            }
        }
    )

    class_id: Annotated[int, Field(description="Index of the most likely class.")]
    class_name: Annotated[str, Field(description="Name of the most likely class.")]
    probability: Annotated[float, Field(description="Probability of the most likely class.")]
    probabilities: Annotated[
        dict[str, float],
        Field(description="Probability by class name, in label order; with `top_k` the k most likely, best first."),
    ]
    model: Model
    distance: Annotated[
        float | None,
        Field(description="How far the image is from the nearest class, of a model that tells; about 0 at the edge."),
    ] = None
    in_distribution: Annotated[
        bool | None, Field(description="Whether the distance is one that images of the classes have.")
    ] = None
    prediction_set: Annotated[
        list[str] | None,
        Field(
            description="With `coverage`, the classes that hold the truth with that probability, best first. "
            "It is empty if none is likely enough."
        ),
    ] = None


class ModelInput(BaseModel):
    """What the model itself takes; any image that is uploaded is brought into this form."""

    height: Annotated[int, Field(description="In pixels.")]
    width: Annotated[int, Field(description="In pixels.")]
    preprocessing: Annotated[str, Field(description="Name of the rule that brings other images into this form.")]


class ModelDetails(Model):
    """The model that answers, and what was measured of it."""

    class_names: Annotated[list[str], Field(description="In label order.")]
    input: ModelInput
    metrics: Annotated[dict[str, Any], Field(description="The figures of the model's card.")]


class Models(BaseModel):
    """The models that answer."""

    models: list[ModelDetails]


class Health(BaseModel):
    """Whether the service takes traffic, and what it really runs on."""

    status: Literal["starting", "ready", "draining", "failed"]
    model: Annotated[Model | None, Field(description="Absent until the model is loaded.")] = None
    device: Annotated[Literal["cuda", "cpu"] | None, Field(description="Where inference runs.")] = None
    providers: Annotated[list[str], Field(description="ONNX Runtime's execution providers as the session has them.")]
    uptime_seconds: Annotated[float, Field(description="Seconds since the process started to serve.")]


class Liveness(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Problem(BaseModel):
    """An error, in the form of RFC 9457 (``application/problem+json``)."""

    type: Annotated[str, Field(description="Stable name of this kind of error.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What was got, what is allowed, what to do.")]
    request_id: Annotated[str, Field(description="Also in the header X-Request-ID and in the service's log.")]
