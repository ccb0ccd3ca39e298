"""``GET /health`` and the paths below it: whether the service is ready, and what it runs on."""

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.schemas import Health, Liveness, ModelHealth
from service.inference.live_model import LiveModel
from service.inference.predictor import Predictor

router = APIRouter(prefix="/health")

NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": Health, "description": "The service does not accept uploads now."}
}


@router.head("", include_in_schema=False)
@router.head("/ready", include_in_schema=False)
@router.get("", summary="Whether the service accepts uploads", responses=NOT_READY)
@router.get("/ready", summary="The same as /health, for probes", responses=NOT_READY)
async def health(request: Request, response: Response) -> Health:
    """Answer 200 if each model passed its self-test and the service accepts uploads, else 503."""
    predictor: Predictor = request.app.state.predictor
    status = predictor.models.status
    if status != "ready":
        response.status_code = 503
    models = [_describe(model) for model in predictor.models]
    return Health(status=status, models=models, uptime_seconds=predictor.uptime_seconds)


def _describe(model: LiveModel) -> ModelHealth:
    classifier = model.classifier
    return ModelHealth(
        name=model.name,
        version=classifier.manifest.version if classifier else None,
        status=model.status,
        device=classifier.device if classifier else None,
        providers=list(classifier.providers) if classifier else [],
    )


@router.head("/live", include_in_schema=False)
@router.get("/live", summary="Whether the process runs")
async def live() -> Liveness:
    """Answer 200 as long as the process runs, even if no model is loaded."""
    return Liveness()
