"""What is noted of one request while it is answered."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.errors import ImageError
from service.inference.predictor import ImageAnswer


@dataclass
class Record:
    """What is noted of one request while it is answered; routes fill it in through ``request.state.record``."""

    upload_bytes: int | None = None
    answers: list[ImageAnswer] = field(default_factory=list)
    failures: list[ImageError] = field(default_factory=list)


def describe_outcome(answer: ImageAnswer) -> dict[str, str | int]:
    """Return what the log and the trace tell of an answer."""
    return {"batch_size": answer.batch_size, "class_name": answer.classification.class_name}
