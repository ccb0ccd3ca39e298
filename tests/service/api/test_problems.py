"""The responses for errors, and their problem bodies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service import errors
from service.api.problems import (
    MAX_DETAIL_CHARACTERS,
    MEDIA_TYPE,
    TABLE,
    problem_body,
    problem_response,
    refuse_connection,
)
from service.app import create_app
from service.settings import Settings
from tests.service.api.test_predict import assert_problem


def scope() -> dict[str, Any]:
    """Return the part of a request's scope that a problem needs."""
    return {"path": "/predict", "state": {"request_id": "id-1"}}


def leaves(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    """Yield the classes below ``kind`` that have no subclass, or ``kind`` itself."""
    subclasses = kind.__subclasses__()
    if not subclasses:
        yield kind
    for subclass in subclasses:
        yield from leaves(subclass)


def test_every_invalid_request_has_a_4xx_and_its_own_name() -> None:
    """Each InvalidRequestError is in the table with a 4xx status; no two errors share a name."""
    for kind in leaves(errors.InvalidRequestError):
        assert 400 <= TABLE[kind][0] < 500
    names = [name for _, name in TABLE.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("status", sorted({status for status, _ in TABLE.values()}))
def test_headers_belong_to_the_status(status: int) -> None:
    """A 401 says how to send a key, 429 and 503 say when to try again; no other status does."""
    kind = next(kind for kind, row in TABLE.items() if row[0] == status)
    retried = kind in (errors.OverloadedError, errors.QuotaExceededError)
    error = kind("too many", 7) if retried else kind("text")
    headers = problem_response(scope(), error).headers
    assert ("www-authenticate" in headers) == (status == 401)
    assert ("retry-after" in headers) == (status in (429, 503))


def test_client_waits_as_long_as_the_error_says() -> None:
    """Retry-After has the seconds of the error, or one second if the error has none."""
    overloaded = problem_response(scope(), errors.OverloadedError("too many", 7))
    not_ready = problem_response(scope(), errors.NotReadyError("starting"))
    assert overloaded.headers["retry-after"] == "7"
    assert not_ready.headers["retry-after"] == "1"


def test_error_outside_the_table_is_raised() -> None:
    """An error that clients must not see is raised again, and so becomes an opaque 500."""
    with pytest.raises(errors.BundleError, match="a path"):
        problem_response(scope(), errors.BundleError("a path of this machine"))


def test_detail_has_a_limit() -> None:
    """A message that is too long is cut, below /v2 too."""
    error, cut = errors.UnreadableImageError("x" * 5000), "x" * MAX_DETAIL_CHARACTERS
    assert problem_body(scope(), error).detail == cut
    response = problem_response(scope() | {"path": "/v2/models/a/infer"}, error)
    assert json.loads(bytes(response.body))["error"] == cut


def test_problem_of_an_image_is_that_of_a_request() -> None:
    """A problem in the answer to a batch is the same as the body of a response."""
    error = errors.UnreadableImageError("not an image")
    body = json.loads(bytes(problem_response(scope(), error).body))
    assert problem_body(scope(), error).model_dump() == body


def test_connection_without_a_request_gets_a_whole_response() -> None:
    """The bytes for a bad connection are a complete response with a problem."""
    head, _, body = refuse_connection(431, "head-too-large", "too large").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 431 Request Header Fields Too Large"
    assert set(lines[1:]) == {
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
    }
    problem = json.loads(body)
    assert problem["type"].endswith(":head-too-large")
    assert (problem["title"], problem["status"]) == ("Head too large", 431)


def test_connection_above_the_limit_gets_retry_after() -> None:
    """A connection that is rejected with 503 gets Retry-After, as every other 503 does."""
    head, _, _ = refuse_connection(503, "overloaded", "too many").partition(b"\r\n\r\n")
    assert "retry-after: 1" in head.decode().split("\r\n")


def test_framework_errors_are_problems_too(linear: TestClient) -> None:
    """Unknown paths and methods get a problem body, as the service's own errors do."""
    assert_problem(linear.get("/nowhere"), 404, "not-found")
    response = linear.get("/predict")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_unknown_error_is_opaque(linear_folder: Path) -> None:
    """An unexpected error becomes a 500 with only the request id, and the service goes on."""
    app = create_app(Settings(models=(linear_folder,), device="cpu"))

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    with TestClient(app) as client:
        response = client.get("/broken")
        assert_problem(response, 500, "internal-error")
        assert "secret" not in response.text
        assert client.get("/health/live").status_code == 200
