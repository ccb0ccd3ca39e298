"""The page ``docs/results.md``: the accuracy of every run beside the published accuracy."""

from __future__ import annotations

import dataclasses
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from training.architectures import (
    ARCHITECTURES,
    count_multiplications,
    find_architecture,
)
from training.data.sources.idx import CLASS_NAMES
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

# Published figures on the standard split, from the last epoch or an epoch chosen on validation:
# (network, parameters, test accuracy).
PUBLISHED_LADDER = (
    ("tiny networks (best published)", "under 100 K", 0.925),
    ("DenseNet-BC", "768 K", 0.9536),
    ("pre-activation ResNet-20 with cutout, 200 epochs", "0.27 M", 0.9551),
    ("shake-shake", "2.9 M", 0.9595),
    ("the best published, lowest figure", "11 M to 26 M", 0.9636),
    ("the best published, highest figure", "11 M to 26 M", 0.9640),
)
SERVED = ("resnet-8", "resnet-8-tiny")


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """An evaluated run: its configuration, its history and its figures."""

    folder: Path
    config: Config
    history: list[dict[str, float]]
    metrics: dict[str, Any]

    @property
    def system(self) -> tuple[str, str, str, Recipe, tuple[str, ...], bool]:
        """The settings that runs of the same system share: all except the seed."""
        run = self.config
        settings = run.architecture, run.recipe_name, run.precision, run.recipe, run.teachers
        return *settings, run.is_averaged

    @property
    def accuracy(self) -> float:
        """The accuracy on the test set."""
        return float(self.metrics["test"]["accuracy"])

    def reads(self, architecture: str, augmentation: str) -> bool:
        """Whether this is a run of ``architecture`` with ``augmentation``."""
        recipe = self.config.recipe
        return (self.config.architecture, recipe.augmentation) == (architecture, augmentation)


def render_results(runs: list[Evaluated]) -> str:
    """Render the page of results from evaluated runs."""
    order = list(ARCHITECTURES)
    evaluated = sorted(
        runs,
        key=lambda run: (order.index(run.config.architecture), str(run.system), run.config.seed),
    )
    systems = [list(group) for _, group in groupby(evaluated, key=lambda run: run.system)]
    table = "\n".join(_row(group) for group in systems)
    return f"""# Results

Written by `python -m training report` from the run folders in `runs/`; do not edit.

Every choice was made on the validation part of the training set. The figures are for the weights
of the last epoch, averaged if the recipe has "ema momentum". `evaluate` opens the test set once for
each run. `export` opens it again, to compare the graph with Keras. `test-openings.csv` in the run's
folder lists both.

- "±" is the standard deviation over seeds. A single seed has the 95 % Wilson interval instead.
- "published" is the test accuracy that the recipe's source reports.
- "points" are percentage points.
- "with flips" is the accuracy if the answers to the image and to its mirror image are averaged.
- "MACs" are the multiply-accumulate operations of convolutions and dense layers for one image.

Each run's `history.csv` holds the figures of each epoch. The plots of a run are not in the
repository.

| network | recipe | parameters | MACs | epochs | seeds | test accuracy | published | \
difference, points | with flips | validation | minutes per run | machine |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{table}

## How do our networks compare with published networks?

All figures are for the standard split: 60,000 training images and 10,000 test images. Our networks
learn from 55,000 of the training images; the other 5,000 are for validation. The standard error of
one accuracy is about 0.2 points.

| network | parameters | test accuracy | source |
|---|---|---|---|
{_ladder(systems)}

## How much does it help to continue a run?

| run | continues | accuracy before | accuracy after | gain, points | published gain, points |
|---|---|---|---|---|---|
{_gains(evaluated)}

The tutorials use `shear_range=0.3`. Keras took this value as radians until December 2017, and takes
it as degrees since then.
{_shear(evaluated)}

## Which recipes have no full run?

These recipes were not run, or only for fewer epochs than the recipe has. In the commands, RUN is an
earlier run or a teacher, FOLDER holds labelled photos, and FILE holds Keras' ImageNet weights of
VGG19. FILE is needed only if Keras cannot download the weights.

{_missing(systems) or "Every recipe was run in full."}
"""


def read_runs(runs: Path) -> list[Evaluated]:
    """Read every evaluated run on Fashion-MNIST in the folder ``runs``."""
    folders = sorted(
        path.parent
        for path in runs.glob(f"*/{METRICS_FILE}")
        if (path.parent / CONFIG_FILE).exists()
    )
    return [
        Evaluated(folder, config, read_history(folder), read_metrics(folder))
        for folder in folders
        if (config := read_config(folder)).class_names == CLASS_NAMES
    ]


def _row(group: list[Evaluated]) -> str:
    first = group[0]
    config, recipe = first.config, first.config.recipe
    accuracies = [run.accuracy for run in group]
    precision = "" if config.precision == "float32" else f", {config.precision}"
    taught = f", distilled from {' and '.join(config.teachers)}" if config.teachers else ""
    averaged = ", averaged with the run before" if config.is_averaged else ""
    cells = [
        f"`{config.architecture}`",
        f"`{config.recipe_name}`{precision}: {recipe}{taught}{averaged}",
        f"{config.parameters:,}",
        f"{count_multiplications(config.build()):,}",
        _epochs(first),
        str(len(group)),
        f"{mean(accuracies):.2%} {_spread(group)}",
        *_beside_published(mean(accuracies), recipe.published),
        _accuracy_with_flips(group),
        f"{mean(run.metrics['validation']['accuracy'] for run in group):.2%}",
        f"{mean(sum(row['seconds'] for row in run.history) for run in group) / 60:.1f}",
        config.made_by["machine"],
    ]
    return f"| {' | '.join(cells)} |"


def _accuracy_with_flips(group: list[Evaluated]) -> str:
    if group[0].config.recipe.photo is not None:
        return ""  # networks for photos are not measured with flips
    return f"{mean(run.metrics['test_with_flips']['accuracy'] for run in group):.2%}"


def _spread(group: list[Evaluated]) -> str:
    if len(group) > 1:
        return f"± {100 * stdev(run.accuracy for run in group):.2f}"
    low, high = group[0].metrics["test"]["wilson_95"]
    return f"({low:.2%} to {high:.2%})"


def _beside_published(accuracy: float, published: float | None) -> tuple[str, str]:
    if published is None:
        return "", ""
    points = round(100 * (accuracy - published), 2) + 0  # + 0 turns -0 into 0
    return f"{published:.2%}", f"{points:+.2f}"


def _epochs(run: Evaluated) -> str:
    planned = "" if _is_full(run) else f" of {_published_recipe(run.config).epochs}"
    earlier = f" after {run.config.earlier_epochs}" if run.config.earlier_epochs else ""
    return f"{len(run.history)}{planned}{earlier}"


def _ladder(systems: list[list[Evaluated]]) -> str:
    """Render the rows of served and published networks, sorted by accuracy."""
    ours = [
        (
            f"`{group[0].config.architecture}` `{group[0].config.recipe_name}`",
            f"{group[0].config.parameters:,}",
            mean(run.accuracy for run in group),
            f"ours, seeds: {len(group)}",
        )
        for group in systems
        if group[0].config.architecture in SERVED
    ]
    others = [(*published, "published") for published in PUBLISHED_LADDER]
    steps = sorted([*ours, *others], key=lambda step: step[2])
    return "\n".join(
        f"| {name} | {size} | {accuracy:.2%} | {whose} |" for name, size, accuracy, whose in steps
    )


@dataclasses.dataclass(frozen=True)
class Continuation:
    """A run that continues an earlier one, with its gain and the published gain in points."""

    run: Evaluated
    earlier: Evaluated
    gain: float
    published: float


def _continuations(evaluated: list[Evaluated]) -> list[Continuation]:
    by_name = {run.config.name: run for run in evaluated}
    found = []
    for run in evaluated:
        earlier = by_name.get(run.config.continued_from or "")
        if earlier is None:
            continue
        after, before = run.config.recipe.published, earlier.config.recipe.published
        if after and before:
            gain = 100 * (run.accuracy - earlier.accuracy)
            found.append(Continuation(run, earlier, gain, 100 * (after - before)))
    return found


def _gains(evaluated: list[Evaluated]) -> str:
    return "\n".join(
        f"| `{each.run.config.name}` | `{each.earlier.config.name}` "
        f"| {each.earlier.accuracy:.2%} | {each.run.accuracy:.2%} "
        f"| {each.gain:+.2f} | {each.published:+.2f} |"
        for each in _continuations(evaluated)
    )


def _shear(evaluated: list[Evaluated]) -> str:
    """Tell for each network which unit of shear gives a gain nearer to the published gain."""
    continuations = _continuations(evaluated)
    sentences = []
    for name in ARCHITECTURES:
        gains = {
            unit: [each for each in continuations if each.run.reads(name, unit)] for unit in SHEAR
        }
        if all(gains.values()):
            sentences.append(_compare_units(name, gains))
    return "\n".join(sentences) or "No network was trained with both units yet."


def _compare_units(name: str, gains: dict[str, list[Continuation]]) -> str:
    means = {unit: mean(each.gain for each in found) for unit, found in gains.items()}
    first = next(iter(gains.values()))[0]
    nearest = min(means, key=lambda unit: abs(means[unit] - first.published))
    measured = " and ".join(
        f"{means[unit]:+.2f} points with {SHEAR[unit]} (seeds: {len(found)})"
        for unit, found in gains.items()
    )
    apart = max(means.values()) - min(means.values())
    low, high = first.run.metrics["test"]["wilson_95"]
    return (
        f"`{name}` gains {measured}. The published gain is {first.published:+.2f} points, so "
        f"{SHEAR[nearest]} fits better. The two gains differ by {apart:.2f} points; the 95 % "
        f"interval of one accuracy is ±{50 * (high - low):.2f} points."
    )


def _published_recipe(config: Config) -> Recipe:
    return find_recipe(config.architecture, config.recipe_name)


def _is_full(run: Evaluated) -> bool:
    """Whether a run had all epochs of its recipe, or was stopped early by the recipe's patience."""
    asked, planned = run.config.recipe, _published_recipe(run.config)
    ended = len(run.history) >= asked.epochs or asked.early_stopping_patience is not None
    return ended and asked.epochs >= planned.epochs


def _missing(systems: list[list[Evaluated]]) -> str:
    """List the recipes without a full run, with the command for each."""
    done = {group[0].system[:2] for group in systems if _is_full(group[0])}
    return "\n".join(
        f"- `{name}` `{recipe_name}` ({recipe}): `{_command(name, recipe_name, recipe)}`"
        for name, recipes in RECIPES.items()
        for recipe_name, recipe in recipes.items()
        if (name, recipe_name) not in done
    )


def _command(name: str, recipe_name: str, recipe: Recipe) -> str:
    start = " --from runs/RUN" if recipe.continues or recipe.fine_tunes else ""
    teacher = "" if recipe.distillation_temperature is None else " --teacher runs/RUN"
    photos = "" if recipe.photo is None else " --photos FOLDER --worn FOLDER"
    weights = "" if find_architecture(name).load_pretrained is None else " --weights FILE"
    options = f"{start}{teacher}{photos}{weights}"
    return f"python -m training train {name} --recipe {recipe_name}{options}"
