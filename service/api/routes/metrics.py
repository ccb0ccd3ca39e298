"""``GET /metrics``, for Prometheus."""

from fastapi import APIRouter, Request, Response

from service.api.openapi import problem_responses, text_response
from service.telemetry.metrics import CONTENT_TYPE, Metrics

router = APIRouter()


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=text_response("text/plain") | problem_responses(400, 401),
)
async def read_metrics(request: Request) -> Response:
    """Return all metrics in Prometheus' text format."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.render(), media_type=CONTENT_TYPE)
