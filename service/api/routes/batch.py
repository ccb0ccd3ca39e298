"""``POST /predict/batch``: many images in one request, each with its own answer or failure."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.types import Scope

from service.api.openapi import FILE, upload_body
from service.api.problems import problem_body
from service.api.routes.predict import PROBLEMS, name_model, prediction_fields
from service.api.schemas import BatchPrediction, Failure, ImagePrediction, PredictionQuery
from service.api.upload_route import UploadRoute
from service.api.uploads import read_batch
from service.errors import ImageError
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
    openapi_extra=upload_body({"type": "array", "items": FILE}, "application/octet-stream")
    | {"parameters": [SHAPE]},
)
async def predict_batch(
    request: Request, query: Annotated[PredictionQuery, Query()]
) -> BatchPrediction:
    """Classify up to 1024 images.

    Send a form with file parts named ``file``, or a tensor as ``application/octet-stream``. The
    tensor has the model's input size and is uint8: ``[N, height, width]`` for a grey model, and
    ``[N, height, width, 3]`` in RGB for a photo model. The model uses its images unchanged. Send a
    file that ``numpy.save`` wrote, or send the pixels alone, with their shape in the header
    ``X-Shape``.
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
        predictions.append(await _describe(index, item, query, request.scope))
    return BatchPrediction(model=name_model(batch.manifest), predictions=predictions)


async def _describe(
    index: int, item: ImageAnswer | ImageError, query: PredictionQuery, scope: Scope
) -> ImagePrediction | Failure:
    if isinstance(item, ImageAnswer):
        return ImagePrediction(**await prediction_fields(item, query))
    return Failure(index=index, problem=problem_body(scope, item))
