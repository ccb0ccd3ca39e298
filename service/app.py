"""Own the composition of the application: wire settings, predictor, routes and limits together, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api import access, problems
from service.api.limits import UploadLimits
from service.api.observe import REASONS, Observe
from service.api.routes import batch, health, metrics, models, predict
from service.inference.predictor import Predictor, load_classifier
from service.settings import Settings
from service.telemetry import tracing
from service.telemetry.metrics import Metrics


def create_app(
    settings: Settings,
    on_failure: Callable[[], None] = lambda: None,
    *,
    starts_with_model: bool = False,
) -> FastAPI:
    """Build the application; its model is loaded after it has started, while ``/health`` answers 503.

    ``on_failure`` is called when there is no model to be had, so that a server can stop. With ``starts_with_model`` the
    start waits for the model instead.
    """
    predictor = Predictor(settings, lambda: load_classifier(settings), on_failure)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        duties = predictor.start(), predictor.watch(), app.state.metrics.watch()
        tasks = [asyncio.create_task(duty) for duty in duties]
        if starts_with_model:
            await tasks[0]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        predictor.close()

    # Not by include_router, which would look for the route of each request twice.
    routes = [
        route
        for module in (predict, batch, models, health, metrics)
        for route in module.router.routes
    ]
    app = FastAPI(
        routes=routes,
        title="Fashion image classifier",
        summary="Upload an image of a garment, get its class and probabilities.",
        version="0.1.0",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from the client's Host header
        telemetry=tracing.configuration(),
    )
    app.state.predictor = predictor
    app.state.metrics = Metrics(predictor, REASONS)
    problems.install(app)
    # The last added is the outermost.
    app.add_middleware(UploadLimits, settings=settings, status=lambda: predictor.status)
    access.install(app, settings)
    paths = {route.path for route in routes if isinstance(route, APIRoute)}
    app.add_middleware(Observe, metrics=app.state.metrics, paths=paths)
    app.add_middleware(access.SecurityHeaders)
    return app
