"""Own the one table from error class to HTTP status and RFC 9457 body. Must never show an unknown error's text."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from service import errors
from service.api.schemas import Problem

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL_CHARACTERS = 1000  # a client may not have us echo more than this
RETRIED = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}

TABLE: dict[type[errors.ServiceError], tuple[int, str]] = {
    errors.UnknownHostError: (400, "unknown-host"),
    errors.UnknownKeyError: (401, "unknown-key"),
    errors.InvalidParameterError: (422, "invalid-parameter"),
    errors.UnknownModelError: (404, "unknown-model"),
    errors.MalformedFormError: (400, "malformed-form"),
    errors.UnsupportedTypeError: (415, "unsupported-type"),
    errors.UploadTooLargeError: (413, "upload-too-large"),
    errors.ImageTooLargeError: (413, "image-too-large"),
    errors.UnreadableImageError: (422, "unreadable-image"),
    errors.UnreadableTensorError: (422, "unreadable-tensor"),
    errors.UploadTimeoutError: (408, "upload-timeout"),
    errors.QuotaExceededError: (429, "quota-exceeded"),
    errors.NotReadyError: (503, "not-ready"),
    errors.OverloadedError: (503, "overloaded"),
    errors.InferenceError: (503, "inference-failed"),
    errors.DeadlineExceededError: (504, "deadline-exceeded"),
}


def install(app: FastAPI) -> None:
    """Answer every error of ``app``, the framework's own included, with a problem body."""
    app.add_exception_handler(errors.ServiceError, _answer_service_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)


def problem_response(scope: Scope, error: errors.ServiceError) -> Response:
    """Return the answer to an error of the table.

    Raises:
        ServiceError: ``error`` itself, if it is none that a client may see.
    """
    if type(error) not in TABLE:
        raise error
    status, name = TABLE[type(error)]
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in RETRIED:
        headers["Retry-After"] = str(getattr(error, "retry_after_seconds", 1))
    return _problem(scope, status, name, str(error), headers)


def problem_body(scope: Scope, error: errors.ServiceError) -> Problem:
    """Return the body that ``problem_response`` would give an error of the table, for one that is a part of an answer."""
    status, name = TABLE[type(error)]
    return _describe(status, name, str(error), scope["state"]["request_id"])


def internal_error(scope: Scope) -> Response:
    """Return the opaque answer to an error that nobody foresaw; its traceback belongs in the log."""
    return _problem(
        scope,
        500,
        "internal-error",
        "the service failed on this request; quote the request id to its operator",
    )


def refuse_connection(status: int, name: str, detail: str) -> bytes:
    """Return the whole answer, head and body, to what is no request yet; the connection is closed after it."""
    body = _body(status, name, detail, uuid.uuid4().hex).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


async def _answer_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ServiceError)  # noqa: S101  what the handler is registered for
    return problem_response(request.scope, error)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  what the handler is registered for
    status = HTTPStatus(error.status_code)
    name = status.phrase.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}: {status.description or status.phrase}; GET /docs lists the routes"
    return _problem(request.scope, status, name, detail, error.headers)


async def _answer_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  what the handler is registered for
    faults = "; ".join(f"{e['loc'][-1]}={e['input']!r:.80}: {_expected(e)}" for e in error.errors())
    return _problem(request.scope, 422, "invalid-parameter", faults)


def _expected(fault: dict[str, Any]) -> str:
    return "not a parameter of this path" if fault["type"] == "extra_forbidden" else fault["msg"]


def _problem(scope: Scope, status: int, name: str, detail: str, headers: Any = None) -> Response:
    scope["state"]["problem"] = name
    return Response(
        _body(status, name, detail, scope["state"]["request_id"]), status, headers, MEDIA_TYPE
    )


def _body(status: int, name: str, detail: str, request_id: str) -> str:
    return _describe(status, name, detail, request_id).model_dump_json()


def _describe(status: int, name: str, detail: str, request_id: str) -> Problem:
    return Problem(
        type=f"urn:problem-type:fashion-classifier:{name}",
        title=name.replace("-", " ").capitalize(),
        status=status,
        detail=detail[:MAX_DETAIL_CHARACTERS],
        request_id=request_id,
    )
