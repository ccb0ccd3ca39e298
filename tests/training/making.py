"""How the tests compose the configuration of a small run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from training.architectures import find_architecture
from training.recipes import Recipe
from training.runs import Config, describe_making
from training.samples import Source

SMALL = Recipe(batch_size=32, epochs=2, validation_fraction=0.2)


def make_config(
    source: Source,
    *,
    name: str,
    architecture: str = "cnn-1conv",
    seed: int = 1,
    precision: str = "float32",
    **recipe: Any,
) -> Config:
    """Compose the configuration of a run of a small recipe, changed by ``recipe``."""
    samples = source.training()
    model = find_architecture(architecture).build(samples.input_size, len(source.class_names))
    return Config(
        name=name,
        architecture=architecture,
        recipe_name="small",
        recipe=replace(SMALL, **recipe),
        seed=seed,
        precision=precision,
        class_names=source.class_names,
        input_size=samples.input_size,
        parameters=model.count_params(),
        data_source=str(source),
        data_sha256=samples.sha256(),
        made_by=describe_making(),
    )
