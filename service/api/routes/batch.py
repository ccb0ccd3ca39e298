"""``POST /predict/batch``: many images in one request, each with its own answer or failure."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.openapi import FILE, upload_body
from service.api.problems import problem_body
from service.api.quota import charge
from service.api.routes.predict import PROBLEMS, describe
from service.api.schemas import BatchPrediction, Failure, Prediction, PredictionQuery
from service.api.upload_route import UploadRoute
from service.api.uploads import ANY_BYTES, read_batch
from service.inference.predictor import ImageAnswer, Predictor
from service.telemetry.record import Record

router = APIRouter(route_class=UploadRoute)

SHAPE = {
    "name": "X-Shape",
    "in": "header",
    "schema": {"type": "string"},
    "description": "Shape of the tensor, if the body is only its pixels, such as N,28,28.",
}


@router.post(
    "/predict/batch",
    summary="Classify many images",
    responses=PROBLEMS,
    openapi_extra=upload_body({"type": "array", "items": FILE}, *ANY_BYTES)
    | {"parameters": [SHAPE]},
)
async def predict_batch(
    request: Request, query: Annotated[PredictionQuery, Query()]
) -> BatchPrediction:
    """Classify up to 1024 images.

    Send a form with file parts named ``file``, or a tensor as ``application/octet-stream``, as
    ``binary/octet-stream`` or without a content type. The
    tensor has a model's input size and is uint8: ``[N, height, width]`` for a grey model, and
    ``[N, height, width, 3]`` in RGB for a photo model. The first model with this input answers, and
    uses the images unchanged. Send a file that ``numpy.save`` wrote, or send the pixels alone, with
    their shape in the header ``X-Shape``.
    """
    predictor: Predictor = request.app.state.predictor
    record: Record = request.state.record
    upload = await read_batch(request)
    if isinstance(upload, bytes):
        record.upload_bytes = len(upload)
        shape = request.headers.get("x-shape")
        admit = partial(charge, request.scope)
        batch = await predictor.predict_tensor(upload, shape, query.model, admit)
    else:
        charge(request.scope, len(upload))
        record.upload_bytes = sum(map(len, upload))
        batch = await predictor.predict_files(upload, query.model, with_pixels=query.explain)
    record.failures += batch.failures
    predictions: list[Prediction | Failure] = []
    for index, item in enumerate(batch.items):
        if isinstance(item, ImageAnswer):
            predictions.append(await describe(item, query))
        else:
            problem = problem_body(request.scope, item)
            predictions.append(Failure(index=index, problem=problem))
    record.answers += batch.answers
    return BatchPrediction(predictions=predictions)
