"""Own the composition of the application: wire settings, predictor, routes and limits together, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from service import problems
from service.errors import ServiceError
from service.limits import BodyLimit, RequestId
from service.predictor import Predictor
from service.routes import health, metrics, predict
from service.settings import Settings
from service.telemetry import Measure, Metrics

log = logging.getLogger(__name__)


def create_app(settings: Settings, on_failure: Callable[[], None] = lambda: None) -> FastAPI:
    """Build the application; its model is loaded after it has started, while ``/health`` answers 503.

    ``on_failure`` is called when the model cannot be loaded, so that a server can stop.
    """
    predictor = Predictor(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(predictor, on_failure))
        yield
        await loading
        predictor.close()

    app = FastAPI(
        title="Fashion image classifier",
        summary="Upload an image of a garment, get its class and probabilities.",
        version="0.1.0",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.predictor = predictor
    app.state.metrics = Metrics()
    for routes in (predict, health, metrics):
        app.include_router(routes.router)
    problems.install(app)
    # The last added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    app.add_middleware(RequestId)
    app.add_middleware(Measure, metrics=app.state.metrics)
    return app


async def _load(predictor: Predictor, on_failure: Callable[[], None]) -> None:
    try:
        await predictor.load()
    except ServiceError as error:
        log.critical("%s", error)
        on_failure()
