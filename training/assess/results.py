"""Own ``docs/results.md``: every evaluated run beside the published figure, no number typed by hand."""

from __future__ import annotations

import dataclasses
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from training.architectures import (
    ARCHITECTURES,
    Architecture,
    count_multiplications,
    find_architecture,
)
from training.fit.recipe import Recipe
from training.fit.recipes import RECIPES, find_recipe
from training.fit.runs import (
    CONFIG_FILE,
    METRICS_FILE,
    Config,
    read_config,
    read_history,
    read_metrics,
)

SHEAR = {"tutorial-degrees": "0.3 degrees", "tutorial-radians": "0.3 radians (17.2 degrees)"}


# What others report on the standard split, of the last epoch or of one chosen on validation: (system, parameters,
# test accuracy).
PUBLISHED_LADDER = (
    ("tiny networks (best published)", "under 100 K", 0.925),
    ("DenseNet-BC", "768 K", 0.9536),
    ("pre-activation ResNet-20 with cutout, 200 epochs", "0.27 M", 0.9551),
    ("shake-shake", "2.9 M", 0.9595),
    ("the best, lower figure", "11 M to 26 M", 0.9636),
    ("the best, upper figure", "11 M to 26 M", 0.9640),
)
SERVED = ("resnet-8", "resnet-8-tiny")


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A run with what was measured of it."""

    folder: Path
    config: Config
    history: list[dict[str, float]]
    metrics: dict[str, Any]

    @property
    def system(self) -> tuple[str, str, str, Recipe, tuple[str, ...]]:
        """What runs of the same system have in common: all but the seed."""
        config = self.config
        return (
            config.architecture,
            config.recipe_name,
            config.precision,
            config.recipe,
            config.teachers,
        )

    def reads(self, architecture: str, augmentation: str) -> bool:
        """Whether this is a run of ``architecture`` with ``augmentation``."""
        return (self.config.architecture, self.config.recipe.augmentation) == (
            architecture,
            augmentation,
        )


def render_results(runs: list[Evaluated]) -> str:
    """Render the page of results of evaluated runs."""
    order = list(ARCHITECTURES)
    evaluated = sorted(
        runs,
        key=lambda run: (order.index(run.config.architecture), str(run.system), run.config.seed),
    )
    systems = [list(group) for _, group in groupby(evaluated, key=lambda run: run.system)]
    table = "\n".join(_row(group) for group in systems)
    missing = "\n".join(
        f"- `{name}` `{recipe_name}` ({recipe}): `{_command(name, recipe_name, recipe)}`"
        for name, recipes in RECIPES.items()
        for recipe_name, recipe in recipes.items()
        if not any(
            _full(group[0]) and group[0].system[:2] == (name, recipe_name) for group in systems
        )
    )
    return f"""# Results

Written by `python -m training report` from the run folders in `runs/`; do not edit.

Every choice was made on the validation part of the training set. The last epoch is reported, or the average of the
weights where the recipe keeps one. The test set was opened once for each run by `evaluate`; an export opens it again,
to compare the graph with Keras (`test-openings.csv`).
"±" is the standard deviation over seeds; with one seed the 95 % Wilson interval is given instead.
"with flips" is the accuracy of the mean answer to the image and its mirror image.
"MACs" are the multiply-accumulate operations of one image in convolutions and dense layers.

| system | recipe | parameters | MACs | epochs | seeds | test accuracy | published | difference, points \
| with flips | validation | minutes a run | machine |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{table}

## The ladder

Networks for serving beside what is published on the standard split of 60,000 and 10,000 images. Ours are trained on
55,000 of the 60,000; the other 5,000 are validation. The standard error of one accuracy is 0.2 points.

| system | parameters | test accuracy | |
|---|---|---|---|
{_ladder(systems)}

## What continuing a run gains

| run | continues | test accuracy before | after | gain, points | published gain |
|---|---|---|---|---|---|
{_gains(evaluated)}

The tutorials say `shear_range=0.3`, which Keras read as radians until December 2017 and as degrees since.
{_shear(evaluated)}

## Not run, or on fewer epochs than the source

RUN is the run that is continued, fine-tuned or distilled from, FOLDER one of labelled photos, FILE Keras' ImageNet
weights of VGG19 where they cannot be downloaded.

{missing or "Every recipe was run in full."}
"""


def read_runs(runs: Path) -> list[Evaluated]:
    """Read every run below ``runs`` that was evaluated."""
    folders = sorted(
        path.parent
        for path in runs.glob(f"*/{METRICS_FILE}")
        if (path.parent / CONFIG_FILE).exists()
    )
    return [
        Evaluated(folder, read_config(folder), read_history(folder), read_metrics(folder))
        for folder in folders
    ]


def _row(group: list[Evaluated]) -> str:
    first = group[0]
    config, recipe = first.config, first.config.recipe
    accuracies = [_accuracy(run) for run in group]
    low, high = first.metrics["test"]["wilson_95"]
    spread = f"± {100 * stdev(accuracies):.2f}" if len(group) > 1 else f"({low:.2%} to {high:.2%})"
    published, difference = "", ""
    if recipe.published is not None:
        published, difference = (
            f"{recipe.published:.2%}",
            f"{round(100 * (mean(accuracies) - recipe.published), 2) + 0:+.2f}",
        )
    planned = _published_recipe(config).epochs
    shortened = "" if _full(first) else f" of {planned}"
    precision = "" if config.precision == "float32" else f", {config.precision}"
    taught = f", distilled from {' and '.join(config.teachers)}" if config.teachers else ""
    cells = [
        f"`{config.architecture}`",
        f"`{config.recipe_name}`{precision}: {recipe}{taught}",
        f"{config.parameters:,}",
        f"{count_multiplications(config.build()):,}",
        f"{len(first.history)}{shortened}"
        + (f" after {config.earlier_epochs}" if config.earlier_epochs else ""),
        str(len(group)),
        f"{mean(accuracies):.2%} {spread}",
        published,
        difference,
        f"{mean(run.metrics['test_with_flips']['accuracy'] for run in group):.2%}",
        f"{mean(run.metrics['validation']['accuracy'] for run in group):.2%}",
        f"{mean(sum(row['seconds'] for row in run.history) for run in group) / 60:.1f}",
        config.made_by["machine"],
    ]
    return f"| {' | '.join(cells)} |"


def _ladder(systems: list[list[Evaluated]]) -> str:
    """Sort what we serve and what others published by accuracy."""
    ours = [
        (
            f"`{group[0].config.architecture}` `{group[0].config.recipe_name}`",
            f"{group[0].config.parameters:,}",
            mean(_accuracy(run) for run in group),
            f"ours, seeds: {len(group)}",
        )
        for group in systems
        if group[0].config.architecture in SERVED
    ]
    steps = sorted(
        [*ours, *((*published, "published") for published in PUBLISHED_LADDER)],
        key=lambda step: step[2],
    )
    return "\n".join(
        f"| {name} | {size} | {accuracy:.2%} | {whose} |" for name, size, accuracy, whose in steps
    )


def _continued(evaluated: list[Evaluated]) -> list[tuple[Evaluated, Evaluated, float, float]]:
    """Pair each run that continues another with it: (run, earlier run, gain, published gain), gains in points."""
    by_name = {run.config.name: run for run in evaluated}
    pairs = [
        (run, by_name[run.config.continued_from])
        for run in evaluated
        if run.config.continued_from in by_name
    ]
    return [
        (
            run,
            earlier,
            100 * (_accuracy(run) - _accuracy(earlier)),
            100 * (published - published_before),
        )
        for run, earlier in pairs
        if (published := run.config.recipe.published)
        and (published_before := earlier.config.recipe.published)
    ]


def _gains(evaluated: list[Evaluated]) -> str:
    return "\n".join(
        f"| `{run.config.name}` | `{earlier.config.name}` | {_accuracy(earlier):.2%} | {_accuracy(run):.2%} "
        f"| {gain:+.2f} | {published:+.2f} |"
        for run, earlier, gain, published in _continued(evaluated)
    )


def _shear(evaluated: list[Evaluated]) -> str:
    """Say for each network which reading of shear comes nearer to the published gain, and whether that means much."""
    continued = _continued(evaluated)
    sentences = []
    for name in ARCHITECTURES:
        gains = {
            reading: [
                (gain, published, run)
                for run, _, gain, published in continued
                if run.reads(name, reading)
            ]
            for reading in SHEAR
        }
        if not all(gains.values()):
            continue
        means = {reading: mean(gain for gain, _, _ in found) for reading, found in gains.items()}
        _, published, run = next(iter(gains.values()))[0]
        low, high = run.metrics["test"]["wilson_95"]
        nearest = min(means, key=lambda reading: abs(means[reading] - published))
        measured = " and ".join(
            f"{SHEAR[r]} {means[r]:+.2f} points (seeds: {len(gains[r])})" for r in SHEAR
        )
        apart = max(means.values()) - min(means.values())
        sentences.append(
            f"On `{name}`, {measured} stand against {published:+.2f}: {SHEAR[nearest]} come nearer. The readings are "
            f"{apart:.2f} points apart; the 95 % interval of one measurement is {50 * (high - low):.2f} to either side."
        )
    return (
        "\n".join(sentences) or "The two readings have not been compared on the same network yet."
    )


def _accuracy(run: Evaluated) -> float:
    return float(run.metrics["test"]["accuracy"])


def _published_recipe(config: Config) -> Recipe:
    return find_recipe(config.architecture, config.recipe_name)


def _full(run: Evaluated) -> bool:
    """Whether a run had all the epochs of its recipe, or could have had and stopped early as the recipe says."""
    asked, planned = run.config.recipe, _published_recipe(run.config)
    ended = len(run.history) >= asked.epochs or asked.early_stopping_patience is not None
    return ended and asked.epochs >= planned.epochs


def _command(name: str, recipe_name: str, recipe: Recipe) -> str:
    start = " --from runs/RUN" if recipe.continues or recipe.fine_tunes else ""
    teacher = "" if recipe.distillation_temperature is None else " --teacher runs/RUN"
    photos = "" if recipe.photos_from == "none" else " --photos FOLDER"
    weights = " --weights FILE" if _takes_weights(find_architecture(name)) else ""
    return (
        f"python -m training train {name} --recipe {recipe_name}{start}{teacher}{photos}{weights}"
    )


def _takes_weights(found: Architecture) -> bool:
    return found.load_pretrained is not None
