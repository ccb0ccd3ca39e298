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


def describe_outcome(answer: ImageAnswer) -> dict[str, str | int]:
    """Return the fields of an answer that its log line and its trace share."""
    return {
        "batch_size": answer.batch_size,
        "class_name": answer.classification.class_name,
        "model": name_model(answer),
    }


def name_model(answer: ImageAnswer) -> str:
    """Return the model that answered, as NAME/VERSION."""
    manifest = answer.classification.manifest
    return f"{manifest.name}/{manifest.version}"
