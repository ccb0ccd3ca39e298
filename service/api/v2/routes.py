"""The paths of the Open Inference Protocol, version 2."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.openapi import FILE, problem_responses
from service.api.quota import charge
from service.api.uploads import read_body
from service.api.v2.outputs import choose_outputs, list_outputs, write_response
from service.api.v2.requests import ReadRequest, read_request
from service.api.v2.schemas import (
    ErrorBody,
    InferenceRequest,
    InferenceResponse,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from service.errors import (
    ImageError,
    InvalidInferenceRequestError,
    NotReadyError,
    UnknownModelError,
)
from service.inference.classifier import Classifier
from service.inference.live_model import LiveModel
from service.inference.predictor import BatchAnswer, Predictor
from service.telemetry.record import Record

router = APIRouter(prefix="/v2")

JSON_LENGTH = "Inference-Header-Content-Length"
LONG_BODY_BYTES = 64 * 1024  # a shorter body is read faster than a thread hop takes
MANY_IMAGES = 32  # the event loop hardly waits while answers to fewer are written
MODEL = "/models/{name}"
VERSION = "/models/{name}/versions/{version}"
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": FILE}}}
}


def _document(path: str) -> dict[str, Any]:
    """Return the parameters of a path for the OpenAPI document."""
    names = [name for name in ("name", "version") if f"{{{name}}}" in path]
    schema = {"type": "string"}
    parameters = [{"name": n, "in": "path", "required": True, "schema": schema} for n in names]
    return {"parameters": parameters}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for its error statuses."""
    entries = problem_responses(*statuses)
    for entry in entries.values():
        del entry["content"]
        entry["model"] = ErrorBody
    return entries


@router.get("", summary="The server's name and extensions", responses=_errors(400, 401))
async def read_server(request: Request) -> ServerMetadata:
    """Return the name and version of the service, and the protocol's extensions it supports."""
    return ServerMetadata(version=request.app.version)


@router.get("/health/live", summary="Whether the process runs")
async def live() -> ServerLive:
    """Answer 200 as long as the process runs, even if no model is loaded."""
    return ServerLive()


@router.get("/health/ready", summary="Whether the service is ready", responses=_errors(503))
async def ready(request: Request) -> ServerReady:
    """Answer 200 if every model is ready and the service accepts requests, else 503."""
    predictor: Predictor = request.app.state.predictor
    if predictor.models.status != "ready":
        raise NotReadyError(f"the service is {predictor.models.status}; try again later")
    return ServerReady()


async def read_model(request: Request) -> ModelMetadata:
    """Return the versions, the input and the outputs of a model."""
    classifier = _find_classifier(request)
    image = TensorMetadata(name="image", datatype="UINT8", shape=[-1, *classifier.input_spec.shape])
    return ModelMetadata(
        name=classifier.manifest.name,
        versions=[classifier.manifest.version],
        inputs=[image],
        outputs=list_outputs(classifier),
    )


async def model_ready(request: Request) -> ModelReady:
    """Answer 200 if the model is ready, else 503."""
    _find_classifier(request)
    model = _find_model(request)
    if model.status != "ready":
        raise NotReadyError(f"the model {model.name} is {model.status}; try again later")
    return ModelReady(name=model.name)


async def infer(request: Request) -> Response:
    """Classify up to 1,024 images.

    The input `image` holds pixels (UINT8) in the size of the model's input, or image files (BYTES):
    in the JSON in base64, or after it as binary data. The request fails if one image fails. A
    parameter that the service does not know is an error.
    """
    record: Record = request.state.record
    if request.scope["query_string"]:
        raise InvalidInferenceRequestError(
            "the path has query parameters; this path takes none; send parameters in the JSON"
        )
    body = await read_body(request)
    record.upload_bytes = len(body)
    json_length = request.headers.get(JSON_LENGTH)
    if len(body) > LONG_BODY_BYTES:
        read = await asyncio.to_thread(read_request, body, json_length)
    else:
        read = read_request(body, json_length)
    # No await between here and the first step of _classify: the version that was checked answers.
    classifier = _find_classifier(request)
    _check_names(read.request, classifier)
    outputs = choose_outputs(read.request, list_outputs(classifier))
    batch = await _classify(request, read, classifier.manifest.name)
    for index, item in enumerate(batch.items):
        if isinstance(item, ImageError):
            raise type(item)(f"the image at index {index}: {item}")
    record.answers += batch.answers
    classifications = [answer.classification for answer in batch.answers]
    if len(classifications) > MANY_IMAGES:
        text, binary = await asyncio.to_thread(
            write_response, read.request, outputs, classifications
        )
    else:
        text, binary = write_response(read.request, outputs, classifications)
    if not any(is_binary for _, is_binary in outputs):
        return Response(text, media_type="application/json")
    headers = {JSON_LENGTH: str(len(text))}
    return Response(text + binary, headers=headers, media_type="application/octet-stream")


async def _classify(request: Request, read: ReadRequest, model: str) -> BatchAnswer:
    predictor: Predictor = request.app.state.predictor
    if isinstance(read.images, bytes):
        admit = partial(charge, request.scope)
        return await predictor.predict_tensor(read.images, read.shape, model, admit)
    charge(request.scope, len(read.images))
    return await predictor.predict_files(read.images, model)


def _check_names(request: InferenceRequest, classifier: Classifier) -> None:
    """Check the names in the JSON, which may be absent."""
    manifest = classifier.manifest
    model, version = request.model_name, request.model_version
    if model not in (None, manifest.name) or version not in (None, manifest.version):
        raise InvalidInferenceRequestError(
            f"the JSON names the model {model!r:.100} and the version {version!r:.100}, but the "
            f"path means {manifest.name!r} and {manifest.version!r}; leave them out of the JSON"
        )


def _find_model(request: Request) -> LiveModel:
    predictor: Predictor = request.app.state.predictor
    models = {model.name: model for model in predictor.models}
    name: str = request.path_params["name"]
    if name not in models:
        raise UnknownModelError(
            f"the model {name[:100]!r} is not served; use {' or '.join(map(repr, models))}"
        )
    return models[name]


def _find_classifier(request: Request) -> Classifier:
    """Return the classifier of the model and version that the path names.

    Raises:
        UnknownModelError: There is no such model, or another version of it is served.
        NotReadyError: The model is not loaded.
    """
    classifier = _find_model(request).current().classifier
    version: str | None = request.path_params.get("version")
    served = classifier.manifest.version
    if version not in (None, served):
        raise UnknownModelError(
            f"the version {version!r:.100} is not served; use {served!r}, or no version"
        )
    return classifier


for path in (MODEL, VERSION):
    router.add_api_route(
        path,
        read_model,
        summary="A model's input and outputs",
        responses=_errors(400, 401, 404, 503),
        openapi_extra=_document(path),
    )
    router.add_api_route(
        f"{path}/ready",
        model_ready,
        summary="Whether a model is ready",
        responses=_errors(400, 401, 404, 503),
        openapi_extra=_document(path),
    )
    router.add_api_route(
        f"{path}/infer",
        infer,
        methods=["POST"],
        summary="Classify images",
        response_model=InferenceResponse,
        responses=_errors(400, 401, 404, 408, 413, 415, 422, 429, 503, 504) | BINARY_ANSWER,
        openapi_extra=_document(path)
        | {
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": f"#/components/schemas/{InferenceRequest.__name__}"}
                    },
                    "application/octet-stream": {"schema": FILE},
                },
            }
        },
    )
