"""Own ``POST /predict``: an uploaded image in, its class and probabilities out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.predictor import Predictor
from service.problems import responses
from service.schemas import Model, Prediction, PredictionQuery
from service.telemetry import Record
from service.uploads import OPENAPI_REQUEST_BODY, read_upload

router = APIRouter()


@router.post(
    "/predict",
    summary="Classify one image",
    responses=responses(400, 401, 408, 413, 415, 422, 429, 503, 504),
    openapi_extra={"requestBody": OPENAPI_REQUEST_BODY},
    response_model_exclude_none=True,
)
async def predict(request: Request, query: Annotated[PredictionQuery, Query()]) -> Prediction:
    """Classify an image: JPEG, PNG, WebP, BMP, GIF or TIFF, as a form's file part ``file`` or as the raw body."""
    predictor: Predictor = request.app.state.predictor
    record: Record = request.state.record
    upload = await read_upload(request)
    record.upload_bytes = len(upload)
    record.answer = await predictor.predict(upload)
    answer = record.answer.classification
    return Prediction(
        class_id=answer.class_id,
        class_name=answer.class_name,
        probability=answer.probability,
        probabilities=answer.by_name(query.top_k),
        model=Model(name=answer.manifest.name, version=answer.manifest.version),
        distance=answer.distance,
        in_distribution=answer.in_distribution,
        prediction_set=answer.prediction_set(query.coverage),
    )
