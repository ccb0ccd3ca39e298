"""Own ``POST /predict/batch``: many images in one request, each answered, or failing, by itself."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.problems import problem_body
from service.api.routes.predict import REFUSALS, name_model, prediction_fields
from service.api.schemas import BatchPrediction, Failure, ImagePrediction, PredictionQuery
from service.api.upload_route import UploadRoute
from service.api.uploads import OPENAPI_BATCH, read_batch
from service.inference.predictor import ImageAnswer, Predictor
from service.telemetry.record import Record

router = APIRouter(route_class=UploadRoute)

SHAPE = {
    "name": "X-Shape",
    "in": "header",
    "schema": {"type": "string"},
    "description": "Of a raw tensor: N,28,28.",
}


@router.post(
    "/predict/batch",
    summary="Classify many images",
    responses=REFUSALS,
    openapi_extra=OPENAPI_BATCH | {"parameters": [SHAPE]},
)
async def predict_batch(
    request: Request, query: Annotated[PredictionQuery, Query()]
) -> BatchPrediction:
    """Classify up to 1024 images: a form's file parts ``file``; or, as ``application/octet-stream``, uint8 pixels of
    images in the model's form, ``[N, height, width]``, as a file in NumPy's format or with their shape in ``X-Shape``.
    """
    predictor: Predictor = request.app.state.predictor
    record: Record = request.state.record
    upload = await read_batch(request)
    if isinstance(upload, bytes):
        record.upload_bytes = len(upload)
        batch = await predictor.predict_tensor(upload, request.headers.get("x-shape"))
    else:
        record.upload_bytes = sum(map(len, upload))
        batch = await predictor.predict_files(upload)
    record.answers += batch.answers
    record.failures += batch.failures
    predictions: list[ImagePrediction | Failure] = []
    for index, item in enumerate(batch.items):
        if isinstance(item, ImageAnswer):
            predictions.append(ImagePrediction(**prediction_fields(item, query)))
        else:
            predictions.append(Failure(index=index, problem=problem_body(request.scope, item)))
        if query.explain:
            await asyncio.sleep(
                0
            )  # a thousand explanations take a good part of a second, and others wait
    return BatchPrediction(model=name_model(batch.manifest), predictions=predictions)
