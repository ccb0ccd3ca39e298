"""Own ``GET /metrics``, for Prometheus."""

from fastapi import APIRouter, Request, Response

from service.telemetry import CONTENT_TYPE

router = APIRouter()


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Answer all metrics in Prometheus' text format."""
    return Response(request.app.state.metrics.render(), media_type=CONTENT_TYPE)
