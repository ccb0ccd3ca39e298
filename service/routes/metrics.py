"""Own ``GET /metrics``, for Prometheus."""

from fastapi import APIRouter, Request, Response

from service.predictor import Predictor
from service.telemetry import CONTENT_TYPE, Metrics

router = APIRouter()


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def read_metrics(request: Request) -> Response:
    """Answer all metrics in Prometheus' text format."""
    metrics: Metrics = request.app.state.metrics
    predictor: Predictor = request.app.state.predictor
    metrics.ready.set(predictor.status == "ready")
    metrics.queue_depth.set(predictor.queue_depth)
    if (classifier := predictor.classifier) is not None:
        metrics.model.clear()
        metrics.model.labels(classifier.manifest.name, classifier.manifest.version, classifier.device).set(1)
    return Response(metrics.render(), media_type=CONTENT_TYPE)
