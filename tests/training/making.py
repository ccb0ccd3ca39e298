"""The configuration of a small run for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.data.photos.collection import PhotoFolders
from training.data.samples import Source
from training.fit.recipe import Recipe
from training.fit.runs import Config
from training.fit.training import plan

SMALL = Recipe(batch_size=32, epochs=2, validation_fraction=0.2)


def make_config(
    source: Source,
    *,
    name: str,
    architecture: str = "cnn-1conv",
    seed: int = 1,
    precision: str = "float32",
    start_from: Path | None = None,
    teachers: Sequence[Path] = (),
    photos: PhotoFolders | None = None,
    **recipe: Any,
) -> Config:
    """Compose the configuration of a run with a small recipe, changed by ``recipe``."""
    changed = replace(SMALL, **recipe)
    return plan(
        architecture,
        "small",
        changed,
        source,
        name=name,
        seed=seed,
        precision=precision,
        start_from=start_from,
        teachers=teachers,
        photos=photos,
    )
