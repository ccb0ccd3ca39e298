"""How the client reads answers: what becomes of each field and header."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from service.client import Prediction, ProblemError
from service.client.answers import parse_batch, raise_for_problem

POST = httpx2.Request("POST", "http://service/predict")
PROBLEM = {
    "type": "/problems/unreadable-image",
    "title": "Unreadable image",
    "status": 422,
    "detail": "it is cut off",
}
PREDICTION = {
    "class_id": 1,
    "class_name": "Trouser",
    "probability": 0.75,
    "probabilities": {"Trouser": 0.75, "Bag": 0.25},
    "model": {"name": "scripted", "version": "7"},
    "explanation": {"preprocessing": "item-on-black"},
    "distance": 1.5,
    "in_distribution": False,
    "prediction_set": ["Trouser"],
}


def test_batch_has_predictions_and_problems_in_order() -> None:
    """Each item of a batch becomes a prediction with all its fields, or a problem with these."""
    items = [{"problem": PROBLEM}, PREDICTION]
    answer = httpx2.Response(200, json={"predictions": items}, request=POST)
    problem, prediction = parse_batch(answer, 2)
    assert isinstance(problem, ProblemError)
    assert (problem.status, problem.problem_type) == (422, PROBLEM["type"])
    assert (problem.title, problem.detail) == ("Unreadable image", "it is cut off")
    assert prediction == Prediction(
        class_id=1,
        class_name="Trouser",
        probability=0.75,
        probabilities={"Trouser": 0.75, "Bag": 0.25},
        model_name="scripted",
        model_version="7",
        explanation={"preprocessing": "item-on-black"},
        distance=1.5,
        in_distribution=False,
        prediction_set=["Trouser"],
    )


def read_wait(retry_after: str) -> float | None:
    """Return the seconds that the client reads from a Retry-After."""
    with pytest.raises(ProblemError) as caught:
        raise_for_problem(httpx2.Response(503, headers={"Retry-After": retry_after}, request=POST))
    return caught.value.retry_after_s


def test_wait_is_read_from_numbers_and_dates() -> None:
    """Retry-After is a number of seconds or a date; a date in the past asks for no wait."""
    now = datetime.now(UTC)
    assert read_wait(" 2 ") == 2
    assert 98 < (read_wait(format_datetime(now + timedelta(seconds=100), usegmt=True)) or 0) <= 100
    assert read_wait(format_datetime(now - timedelta(seconds=100), usegmt=True)) == 0
    assert read_wait("soon") is None
