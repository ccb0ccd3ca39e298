"""A live model for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from service.inference.classifier import Classifier, load_classifier
from service.inference.live_model import LiveModel
from service.machine.sizing import count_threads
from service.settings import Settings


@asynccontextmanager
async def started_model(
    settings: Settings, load: Callable[[], Classifier] | None = None, **hooks: Any
) -> AsyncIterator[LiveModel]:
    """Start a model, and close it at the end."""
    load_model = load or partial(load_classifier, settings)
    threads = count_threads(settings, workers=1)
    model = LiveModel(settings, load_model, threads=threads, **hooks)
    await model.start()
    yield model
    model.close()
