"""The recipes: schedules have the documented shape, and recipes survive JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from training.architectures import ARCHITECTURES
from training.errors import TrainingError
from training.fit.augmentation import AUGMENTATIONS
from training.fit.recipe import Recipe, read_recipe
from training.fit.recipes import MODERN_RECIPES, RECIPES, find_recipe

EVERY_RECIPE = [
    *MODERN_RECIPES.values(),
    *(recipe for recipes in RECIPES.values() for recipe in recipes.values()),
]


def rates(recipe: Recipe, steps: int) -> list[float]:
    """Ask the optimizer for its learning rate at each step."""
    optimizer = recipe.make_optimizer(steps)
    seen = []
    for step in range(steps + 1):
        optimizer.iterations.assign(step)
        seen.append(float(optimizer.learning_rate))
    return seen


def test_constant_stays() -> None:
    """A constant learning rate is equal at every step."""
    assert set(rates(Recipe(learning_rate=0.5), 20)) == {0.5}


def test_cosine_falls_from_its_peak_to_nothing() -> None:
    """A cosine schedule starts at the rate, is at half of it in the middle, and ends at zero."""
    seen = rates(Recipe(learning_rate=0.5, schedule="cosine"), 100)
    np.testing.assert_allclose([seen[0], seen[50], seen[100]], [0.5, 0.25, 0], atol=1e-6)
    assert seen == sorted(seen, reverse=True)


def test_onecycle_rises_for_30_percent_and_falls_to_nothing() -> None:
    """One cycle starts at 1/25 of the rate, peaks at 30 % of the steps and ends at zero."""
    seen = rates(Recipe(learning_rate=0.5, schedule="onecycle"), 100)
    np.testing.assert_allclose([seen[0], seen[30], seen[100]], [0.02, 0.5, 0], atol=1e-6)
    assert int(np.argmax(seen)) == 30


def test_weight_decay_and_average_reach_the_optimizer() -> None:
    """Modern recipes average and decay the weights, and plain recipes do neither."""
    for name, kind in (("modern", "AdamW"), ("modern-sgd", "SGD")):
        optimizer = MODERN_RECIPES[name].make_optimizer(100)
        assert type(optimizer).__name__ == kind
        assert optimizer.use_ema
        assert optimizer.weight_decay == MODERN_RECIPES[name].weight_decay > 0
    assert not Recipe().make_optimizer(100).use_ema


@pytest.mark.parametrize("recipe", EVERY_RECIPE, ids=str)
def test_recipe_survives_being_written(recipe: Recipe) -> None:
    """A recipe survives JSON and shows its number of epochs and a known augmentation."""
    assert read_recipe(json.loads(json.dumps(asdict(recipe)))) == recipe
    assert recipe.augmentation in AUGMENTATIONS
    assert str(recipe.epochs) in str(recipe)
    assert recipe.augmentation == "none" or recipe.augmentation in str(recipe)


def test_every_architecture_has_recipes() -> None:
    """Each network has at least one recipe, in the order of the networks."""
    assert list(RECIPES) == list(ARCHITECTURES)
    assert all(RECIPES.values())


def test_error_for_unknown_recipe_lists_the_known() -> None:
    """An unknown recipe or architecture gives an error that lists the known ones."""
    with pytest.raises(TrainingError, match=r"choose one of .*plain"):
        find_recipe("cnn-1conv", "fancy")
    with pytest.raises(TrainingError, match="choose one of mlp-64-64"):
        find_recipe("resnet", "plain")
