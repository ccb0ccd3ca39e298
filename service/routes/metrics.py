"""Own ``GET /metrics``, for Prometheus."""

from fastapi import APIRouter, Request, Response

from service.telemetry import CONTENT_TYPE, Metrics

router = APIRouter()


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def read_metrics(request: Request) -> Response:
    """Answer all metrics in Prometheus' text format."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.render(), media_type=CONTENT_TYPE)
