"""``POST /predict``: classify one uploaded image."""

import asyncio
from base64 import b64encode
from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.openapi import FILE, problem_responses, upload_body
from service.api.schemas import Explanation, Model, Prediction, PredictionQuery
from service.api.upload_route import UploadRoute
from service.api.uploads import ANY_BYTES, read_upload
from service.inference.predictor import ImageAnswer, Predictor
from service.telemetry.record import Record

router = APIRouter(route_class=UploadRoute)

PROBLEMS = problem_responses(400, 401, 408, 413, 415, 422, 429, 503, 504)


@router.post(
    "/predict",
    summary="Classify one image",
    responses=PROBLEMS,
    openapi_extra=upload_body(FILE, "image/*", *ANY_BYTES),
)
async def predict(request: Request, query: Annotated[PredictionQuery, Query()]) -> Prediction:
    """Classify a JPEG, PNG, WebP, AVIF, BMP or GIF, as the form's file ``file`` or the raw body.

    A raw body without a content type is taken by its content, too.
    """
    predictor: Predictor = request.app.state.predictor
    record: Record = request.state.record
    upload = await read_upload(request)
    record.upload_bytes = len(upload)
    answer = await predictor.predict(upload, query.model)
    prediction = await describe(answer, query)  # an error: the request has no answer
    record.answers.append(answer)
    return prediction


async def describe(answer: ImageAnswer, query: PredictionQuery) -> Prediction:
    """Return what ``query`` asks for about one image."""
    classification = answer.classification
    manifest = classification.manifest
    return Prediction(
        class_id=classification.class_id,
        class_name=classification.class_name,
        probability=classification.probability,
        probabilities=classification.by_name(query.top_k),
        distance=classification.distance,
        in_distribution=classification.in_distribution,
        prediction_set=classification.prediction_set(query.coverage),
        # Encoding two pictures takes milliseconds: the event loop answers other requests meanwhile.
        explanation=await asyncio.to_thread(explain, answer) if query.explain else None,
        model=Model(name=manifest.name, version=manifest.version),
    )


def explain(answer: ImageAnswer) -> Explanation:
    """Show the image that the model saw, and how it was made or where the model looked."""
    source = answer.source
    image = b64encode(source.to_png()).decode()
    if source.image.ndim == 3:
        activations = answer.classification.activations
        if activations is None:
            return Explanation(image=image)
        heat_map = source.to_heat_map_png(activations[answer.classification.class_id])
        return Explanation(image=image, heat_map=b64encode(heat_map).decode())
    placed = source.placed
    return Explanation(
        image=image,
        polarity="negated" if placed and placed.negated else "kept",
        mirrored=bool(placed and placed.mirrored),
        background=placed.background_hex if placed else None,
        item_box=placed.box if placed else None,
        mask_quality=placed.item.quality if placed else None,
        warnings=list(placed.item.warnings) if placed else [],
    )
