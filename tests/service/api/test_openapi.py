"""The OpenAPI document: problems, API keys and request bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.keys import new_key
from service.api.openapi import KEY_SCHEMES
from service.api.problems import MEDIA_TYPE, RETRIED
from service.app import create_app
from service.settings import Settings


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each operation of a document with its path."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_keys_are_documented_where_they_are_needed(tmp_path: Path) -> None:
    """With a file of keys, every path except those of health needs a key."""
    path = tmp_path / "keys"
    path.write_text(new_key("alice")[1])
    document = create_app(Settings(api_keys_file=path)).openapi()
    assert document["components"]["securitySchemes"] == KEY_SCHEMES
    either: list[dict[str, list[str]]] = [{"HTTPBearer": []}, {"APIKeyHeader": []}]
    for path_of_operation, operation in operations(document):
        is_open = path_of_operation.startswith(("/health", "/v2/health"))
        assert operation.get("security") == (None if is_open else either), path_of_operation


def test_without_keys_no_key_is_documented() -> None:
    """Without a file of keys, the document does not mention keys."""
    document = create_app(Settings()).openapi()
    assert "securitySchemes" not in document["components"]
    assert not [path for path, operation in operations(document) if "security" in operation]


def test_every_error_is_a_problem() -> None:
    """Every error has the problem schema; below /v2 that of the Open Inference Protocol.

    The 503 of /health is a health body.
    """
    document = create_app(Settings()).openapi()
    assert {"Problem", "ErrorBody"} <= document["components"]["schemas"].keys()
    for path, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) < 400 or path.startswith("/health"):
                continue
            is_v2 = f"{path}/".startswith("/v2/")
            media_type = "application/json" if is_v2 else MEDIA_TYPE
            assert response["content"].keys() == {media_type}, (path, status)
            schema = response["content"][media_type]["schema"]
            name = "ErrorBody" if is_v2 else "Problem"
            assert schema == {"$ref": f"#/components/schemas/{name}"}
            assert ("Retry-After" in response.get("headers", {})) == (int(status) in RETRIED)


def test_upload_paths_take_a_form_or_the_raw_file() -> None:
    """The request body of both upload paths is a form with the part `file`, or raw bytes."""
    document = create_app(Settings()).openapi()
    for path, raw_types in (
        ("/predict", {"image/*", "application/octet-stream", "binary/octet-stream"}),
        ("/predict/batch", {"application/octet-stream", "binary/octet-stream"}),
    ):
        body = document["paths"][path]["post"]["requestBody"]
        assert body["required"]
        assert body["content"].keys() == {"multipart/form-data"} | raw_types
        form = body["content"]["multipart/form-data"]["schema"]
        assert form["required"] == list(form["properties"]) == ["file"]


def test_parameters_of_paths_are_documented() -> None:
    """Each name in a path is a string that is required."""
    document = create_app(Settings()).openapi()
    for path, operation in operations(document):
        parameters = [each for each in operation.get("parameters", []) if each["in"] == "path"]
        assert {each["name"] for each in parameters} == set(re.findall(r"{(\w+)}", path)), path
        assert all(each["required"] for each in parameters)
        assert {each["schema"]["type"] for each in parameters} <= {"string"}


@pytest.mark.parametrize(
    ("path", "media_type"), [("/models/{name}/card", "text/markdown"), ("/metrics", "text/plain")]
)
def test_answers_of_text_are_documented(path: str, media_type: str) -> None:
    """Answers that are not JSON are documented as text."""
    answer = create_app(Settings()).openapi()["paths"][path]["get"]["responses"]["200"]
    assert answer["content"] == {media_type: {"schema": {"type": "string"}}}


def test_document_does_not_grow_when_it_is_read_again() -> None:
    """A second call returns the same document."""
    app = create_app(Settings())
    first = json.dumps(app.openapi())
    assert json.dumps(app.openapi()) == first
