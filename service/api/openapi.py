"""Adds to the OpenAPI document what FastAPI cannot derive from the routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from service.api.access import needs_key
from service.api.problems import MEDIA_TYPE, RETRIED
from service.api.schemas import Problem
from service.api.uploads import FIELD, FORM
from service.api.v2.schemas import InferenceRequest

Responses = dict[int | str, dict[str, Any]]

KEY_SCHEMES = {
    "HTTPBearer": {"type": "http", "scheme": "bearer"},
    "APIKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
FILE = {"type": "string", "format": "binary"}


def install(app: FastAPI, *, with_keys: bool) -> None:
    """Add to the document what no route names: schemas, and ``with_keys`` the ways to send a key.

    FastAPI's page "Extending OpenAPI" describes how to override ``app.openapi``.
    """
    document = app.openapi

    def openapi() -> dict[str, Any]:
        content = document()
        schemas = content["components"]["schemas"]
        for model in (Problem, InferenceRequest):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        if with_keys:
            _add_keys(content)
        return content

    app.openapi = openapi  # type: ignore[method-assign]


def _add_keys(content: dict[str, Any]) -> None:
    content["components"]["securitySchemes"] = KEY_SCHEMES
    for path, operations in content["paths"].items():
        if needs_key(path):
            for operation in operations.values():
                operation["security"] = [{name: []} for name in KEY_SCHEMES]


def problem_responses(*statuses: int) -> Responses:
    """Return the ``responses`` of a route for its error statuses."""
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    entries: Responses = {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }
    for status in RETRIED & entries.keys():
        entries[status]["headers"] = {
            "Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}
        }
    return entries


def text_response(media_type: str) -> Responses:
    """Return the ``responses`` of a route whose 200 is text and not JSON."""
    return {200: {"content": {media_type: {"schema": {"type": "string"}}}}}


def upload_body(file: dict[str, Any], *raw_types: str) -> dict[str, Any]:
    """Return the ``requestBody``: a form with ``file``, or raw bytes of one of ``raw_types``."""
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: file}}
    content = {FORM: {"schema": form}} | {name: {"schema": FILE} for name in raw_types}
    return {"requestBody": {"required": True, "content": content}}
