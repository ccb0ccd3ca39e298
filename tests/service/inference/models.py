"""Live models for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from service.inference.classifier import Classifier, load_classifier
from service.inference.models import LiveModels
from service.machine.sizing import count_threads
from service.settings import Settings


@asynccontextmanager
async def started_models(
    settings: Settings, load: Callable[[Path], Classifier] | None = None, **hooks: Any
) -> AsyncIterator[LiveModels]:
    """Start the models of ``settings``, and close them at the end."""
    load_any = load or partial(load_classifier, device=settings.device)
    threads = count_threads(settings, workers=1)
    models = LiveModels(settings, load_any, threads=threads, **hooks)
    await models.start()
    yield models
    models.close()
