"""Turns errors into responses: the HTTP status of each error, and a problem body (RFC 9457).

Below ``/v2``, the body is the one of the Open Inference Protocol.

A client never sees the message of an error that is not in ``TABLE``.
"""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from service import errors
from service.api.schemas import Problem

MEDIA_TYPE = "application/problem+json"
OPEN_INFERENCE = "/v2/"
"""Below this path, an error has the format of the Open Inference Protocol."""
MAX_DETAIL_CHARACTERS = 1000  # a detail may quote the request, and a request can be long
# Responses with these statuses have a Retry-After header.
RETRIED = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}

TABLE: dict[type[errors.ServiceError], tuple[int, str]] = {
    errors.UnknownHostError: (400, "unknown-host"),
    errors.UnknownKeyError: (401, "unknown-key"),
    errors.InvalidParameterError: (422, "invalid-parameter"),
    errors.UnknownModelError: (404, "unknown-model"),
    errors.MalformedFormError: (400, "malformed-form"),
    errors.InvalidInferenceRequestError: (400, "invalid-inference-request"),
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
    """Answer the service's errors and the framework's own with a problem body."""
    for kind in (errors.ServiceError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _handle)


def problem_response(scope: Scope, error: errors.ServiceError) -> Response:
    """Return the response for an error of ``TABLE``.

    Raises:
        ServiceError: ``error`` itself, if it is not in ``TABLE``.
    """
    if type(error) not in TABLE:
        raise error
    status, name = TABLE[type(error)]
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in RETRIED:
        headers["Retry-After"] = str(getattr(error, "retry_after_seconds", 1))
    return _response(scope, status, name, str(error), headers)


def problem_body(scope: Scope, error: errors.ServiceError) -> Problem:
    """Return the problem body for an error of ``TABLE``, for one image in the answer to a batch."""
    status, name = TABLE[type(error)]
    return _problem(status, name, str(error), scope["state"]["request_id"])


def internal_error(scope: Scope) -> Response:
    """Return the response for an unexpected error: it reveals only the request id."""
    return _response(
        scope,
        500,
        "internal-error",
        "the service failed on this request; send the request id to its operator",
    )


def refuse_connection(status: int, name: str, detail: str) -> bytes:
    """Return the bytes of a response for a connection that has not sent a valid request.

    The caller must close the connection after it, as the response says.
    """
    body = _problem(status, name, detail, uuid.uuid4().hex).model_dump_json().encode()
    retry = "retry-after: 1\r\n" if status in RETRIED else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{retry}"
        f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


async def _handle(request: Request, error: Exception) -> Response:
    match error:
        case errors.ServiceError():
            return problem_response(request.scope, error)
        case HTTPException():
            return _framework_response(request, error)
        case RequestValidationError():
            detail = "; ".join(map(_describe_fault, error.errors()))
            return _response(request.scope, 422, "invalid-parameter", detail)
    raise error


def _framework_response(request: Request, error: HTTPException) -> Response:
    status = HTTPStatus(error.status_code)
    name = status.phrase.lower().replace(" ", "-")
    reason = status.description or status.phrase
    detail = f"{request.method} {request.url.path}: {reason}; GET /docs lists the routes"
    return _response(request.scope, status, name, detail, error.headers)


def _describe_fault(fault: dict[str, Any]) -> str:
    name, allowed = fault["loc"][-1], fault["msg"].replace("Input", "it", 1)
    advice = f"send another {name}"
    if fault["type"] == "extra_forbidden":
        allowed, advice = "this path has no such parameter", "leave it out"
    return f"{name}={fault['input']!s:.80}: {allowed}; {advice}"


def _response(scope: Scope, status: int, name: str, detail: str, headers: Any = None) -> Response:
    scope["state"]["problem"] = name
    if f"{scope['path']}/".startswith(OPEN_INFERENCE):
        return JSONResponse({"error": detail[:MAX_DETAIL_CHARACTERS]}, status, headers)
    body = _problem(status, name, detail, scope["state"]["request_id"]).model_dump_json()
    return Response(body, status, headers, MEDIA_TYPE)


def _problem(status: int, name: str, detail: str, request_id: str) -> Problem:
    return Problem(
        type=f"urn:problem-type:fashion-classifier:{name}",
        title=name.replace("-", " ").capitalize(),
        status=status,
        detail=detail[:MAX_DETAIL_CHARACTERS],
        request_id=request_id,
    )
