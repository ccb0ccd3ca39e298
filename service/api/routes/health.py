"""Own ``GET /health`` and what is below it: whether the service takes traffic, and on what it runs."""

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.schemas import Health, Liveness, Model
from service.inference.predictor import Predictor

router = APIRouter(prefix="/health")

NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "The service takes no traffic now."}
}


@router.head("", include_in_schema=False)
@router.head("/ready", include_in_schema=False)
@router.get("", summary="Whether the service takes traffic", responses=NOT_READY)
@router.get("/ready", summary="The same, for probes", responses=NOT_READY)
async def health(request: Request, response: Response) -> Health:
    """Answer 200 when an inference has succeeded and the service takes traffic, else 503."""
    predictor: Predictor = request.app.state.predictor
    model = predictor.model
    if model.status != "ready":
        response.status_code = 503
    body = Health(status=model.status, providers=[], uptime_seconds=predictor.uptime_seconds)
    if model.classifier is None:
        return body
    manifest = model.classifier.manifest
    return body.model_copy(
        update={
            "model": Model(name=manifest.name, version=manifest.version),
            "device": model.classifier.device,
            "providers": list(model.classifier.providers),
        }
    )


@router.head("/live", include_in_schema=False)
@router.get("/live", summary="Whether the process runs")
async def live() -> Liveness:
    """Answer as long as the process runs, while the model loads too."""
    return Liveness()
