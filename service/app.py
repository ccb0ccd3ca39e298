"""Builds the FastAPI application from its settings: models, routes and middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api import access, openapi, problems
from service.api.limits import UploadLimits
from service.api.observe import REASONS, Observe
from service.api.page.routes import docs_router, page_router
from service.api.root_path import RootPath
from service.api.routes import batch, health, metrics, models, predict
from service.api.v2 import routes as v2
from service.inference.classifier import load_classifier
from service.inference.models import LiveModels
from service.inference.predictor import Predictor
from service.machine.sizing import count_threads
from service.settings import Settings
from service.telemetry import tracing
from service.telemetry.metrics import Metrics


def create_app(
    settings: Settings,
    on_failure: Callable[[], None] = lambda: None,
    *,
    starts_with_models: bool = False,
    threads: int | None = None,
    metrics_folder: str | None = None,
) -> FastAPI:
    """Build the application. After its start it loads its models; until then /health answers 503.

    With ``starts_with_models`` it loads them before it accepts requests. ``on_failure`` is called
    if a model cannot be loaded or threads hang, so that the server can stop. A supervisor
    sets ``threads`` and ``metrics_folder`` for its workers, which share metrics and rate limits.
    """
    threads = threads or count_threads(settings, workers=1)
    load = partial(load_classifier, device=settings.device)
    served = LiveModels(settings, load, on_failure, threads=threads)
    predictor = Predictor(settings, served, threads=threads)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        duties = served.start(), served.watch(), predictor.watch(), app.state.metrics.watch()
        tasks = [asyncio.create_task(duty) for duty in duties]
        if starts_with_models:
            await tasks[0]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        predictor.close()
        served.close()

    # With include_router, FastAPI would search the routes twice for each request.
    modules = predict, batch, models, health, metrics, v2
    routers = [*(module.router for module in modules), docs_router()]
    if settings.page:
        routers.append(page_router())
    routes = [route for router in routers for route in router.routes]
    app = FastAPI(
        routes=routes,
        title="Fashion image classifier",
        summary="Upload an image of a garment, get its class and probabilities.",
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads files from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to any host that the client names
        telemetry=tracing.configuration(),
    )
    app.state.predictor = predictor
    app.state.metrics = Metrics(predictor, REASONS, metrics_folder)
    problems.install(app)
    openapi.install(app, with_keys=settings.api_keys_file is not None)
    # The middleware added last is the outermost.
    app.add_middleware(UploadLimits, settings=settings, status=lambda: served.status)
    access.install(app, settings, Path(metrics_folder) if metrics_folder else None)
    paths = {route.path for route in routes if isinstance(route, APIRoute)}
    app.add_middleware(
        Observe,
        metrics=app.state.metrics,
        paths=paths,
        with_address=settings.log_client_address,
    )
    app.add_middleware(access.SecurityHeaders)
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)
    return app
