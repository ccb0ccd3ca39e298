"""Reads the service's answers: predictions, batches of predictions, and problems."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from service.client.errors import ProblemError, UnexpectedAnswerError

# What reading a JSON value raises if the value is not what the service promises.
READ_ERRORS = (AttributeError, KeyError, OverflowError, TypeError, ValueError)


@dataclass(frozen=True)
class Prediction:
    """The service's answer for one image.

    ``probabilities`` maps each class to a value in [0, 1], in the model's label order; with
    ``top_k`` it holds only the most likely classes, most likely first. ``explanation`` is None
    without ``explain=True``, and ``prediction_set`` is None without ``coverage``. ``distance`` and
    ``in_distribution`` are None if the model does not measure them.
    """

    class_id: int
    class_name: str
    probability: float
    probabilities: Mapping[str, float]
    model_name: str
    model_version: str
    explanation: Mapping[str, Any] | None = None
    distance: float | None = None
    in_distribution: bool | None = None
    prediction_set: list[str] | None = None


def hide_password(url: httpx2.URL | str) -> httpx2.URL:
    """Return a URL without user and password, for messages."""
    return httpx2.URL(url).copy_with(userinfo=b"")


def raise_for_problem(response: httpx2.Response) -> None:
    """Raise a ProblemError if the answer is not a 200."""
    if response.status_code == 200:
        return
    title = f"HTTP {response.status_code} {response.reason_phrase}"
    problem = {"type": "about:blank", "title": title, "detail": _describe(response)}
    with suppress(TypeError, ValueError):  # a proxy's error page is not a JSON object
        problem |= response.json()
    raise ProblemError(response.status_code, problem, _parse_retry_after_s(response))


def parse_prediction(response: httpx2.Response) -> Prediction:
    """Return the prediction of a 200 from ``/predict``.

    Raises:
        UnexpectedAnswerError: The answer has no prediction.
    """
    try:
        return _read_prediction(response.json())
    except READ_ERRORS as error:
        raise _unexpected(response) from error


def parse_batch(response: httpx2.Response, count: int) -> list[Prediction | ProblemError]:
    """Return the predictions and problems of a 200 from ``/predict/batch``, one for each image.

    Raises:
        UnexpectedAnswerError: The answer does not have ``count`` predictions and problems.
    """
    try:
        items = [_read_item(item) for item in response.json()["predictions"]]
    except READ_ERRORS as error:
        raise _unexpected(response) from error
    if len(items) != count:
        raise _unexpected(response)
    return items


def _read_item(item: Mapping[str, Any]) -> Prediction | ProblemError:
    if problem := item.get("problem"):
        return ProblemError(int(problem["status"]), problem)
    return _read_prediction(item)


def _read_prediction(body: Mapping[str, Any]) -> Prediction:
    return Prediction(
        class_id=int(body["class_id"]),
        class_name=str(body["class_name"]),
        probability=float(body["probability"]),
        probabilities={str(name): float(p) for name, p in body["probabilities"].items()},
        model_name=str(body["model"]["name"]),
        model_version=str(body["model"]["version"]),
        explanation=body.get("explanation"),
        distance=body.get("distance"),
        in_distribution=body.get("in_distribution"),
        prediction_set=body.get("prediction_set"),
    )


def _unexpected(response: httpx2.Response) -> UnexpectedAnswerError:
    return UnexpectedAnswerError(
        f"{hide_password(response.url)} answered 200 without a prediction: {response.text[:200]}"
    )


def _describe(response: httpx2.Response) -> str:
    if response.has_redirect_location:
        target = response.headers["Location"]
        return f"the URL redirects to {target}, and the client does not follow; use that URL"
    return response.text[:200].strip() or "the answer has no text"


def _parse_retry_after_s(response: httpx2.Response) -> float | None:
    """Return the seconds of Retry-After, a number or an HTTP date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    wait = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)
    return max(0.0, wait.total_seconds())
