"""What a route reports about one request, for its metrics, log line and trace."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.errors import ImageError
from service.inference.predictor import ImageAnswer


@dataclass
class Record:
    """The upload and the outcome of one request. The route fills ``request.state.record``."""

    upload_bytes: int | None = None
    answers: list[ImageAnswer] = field(default_factory=list)
    failures: list[ImageError] = field(default_factory=list)


def describe_outcome(answer: ImageAnswer) -> dict[str, str | float]:
    """Return the fields of an answer that its log line and its trace share.

    ``in_distribution`` is left out if the model has no distance.
    """
    classification = answer.classification
    fields: dict[str, str | float] = {
        "batch_size": answer.batch_size,
        "class_name": classification.class_name,
        "probability": round(classification.probability, 4),
        "model": name_model(answer),
    }
    if classification.in_distribution is not None:
        fields["in_distribution"] = classification.in_distribution
    return fields


def name_model(answer: ImageAnswer) -> str:
    """Return the model that answered, as NAME/VERSION."""
    manifest = answer.classification.manifest
    return f"{manifest.name}/{manifest.version}"


def is_out_of_distribution(answer: ImageAnswer) -> bool:
    """Say whether the image looks like none of the classes; false if the model has no distance."""
    return answer.classification.in_distribution is False
