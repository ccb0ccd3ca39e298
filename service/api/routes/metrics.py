"""Own ``GET /metrics``, for Prometheus."""

from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.problems import responses
from service.telemetry.metrics import CONTENT_TYPE, Metrics

router = APIRouter()

TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=TEXT | responses(400, 401),
)
async def read_metrics(request: Request) -> Response:
    """Answer all metrics in Prometheus' text format."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.render(), media_type=CONTENT_TYPE)
