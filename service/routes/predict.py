"""Own ``POST /predict``: an uploaded image in, its class and probabilities out."""

from base64 import b64encode
from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.imaging import ModelInput
from service.predictor import Predictor
from service.problems import responses
from service.routes.upload_route import UploadRoute
from service.schemas import Explanation, Model, Prediction, PredictionQuery
from service.telemetry import Record
from service.uploads import OPENAPI_REQUEST_BODY, read_upload

router = APIRouter(route_class=UploadRoute)


@router.post(
    "/predict",
    summary="Classify one image",
    responses=responses(400, 401, 408, 413, 415, 422, 429, 503, 504),
    openapi_extra={"requestBody": OPENAPI_REQUEST_BODY},
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
        explanation=explain(record.answer.source) if query.explain else None,
    )


def explain(source: ModelInput) -> Explanation:
    """Tell what the model saw, and how it was made of the upload."""
    return Explanation(
        image=b64encode(source.to_png()).decode(),
        polarity="negated" if source.negated else "kept",
        background=source.ground_hex,
        item_box=source.item_box,
        mask_quality=source.item.quality if source.item else None,
        warnings=list(source.item.warnings) if source.item else [],
    )
