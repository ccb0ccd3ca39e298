"""The page of results: it shows the figures of the runs, and docs/results.md is current."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.training.fashion_mnist import ROOT
from training.assess.results import Evaluated, read_runs, render_results
from training.fit.recipes import RECIPES


def rows(page: str, architecture: str) -> list[list[str]]:
    """Find the rows of an architecture in the table of a page."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith(f"| `{architecture}` |")
    ]


def published_runs() -> list[Evaluated]:
    """Read the runs in the repository, and no other runs on this machine."""
    listed = subprocess.run(
        ["git", "ls-files", "runs/*/metrics.json"], cwd=ROOT, capture_output=True, text=True
    )
    names = {line.split("/")[1] for line in listed.stdout.splitlines()}
    if not names:
        pytest.skip("git does not tell which runs are in the repository")
    return [run for run in read_runs(ROOT / "runs") if run.folder.name in names]


def test_page_in_docs_is_current() -> None:
    """docs/results.md equals the page of `python -m training report`."""
    assert (ROOT / "docs" / "results.md").read_text() == render_results(published_runs())


def test_runs_in_the_repository_are_complete() -> None:
    """Each run describes how it was made and has one row of history for each epoch."""
    for run in published_runs():
        assert run.folder.name == run.config.name
        assert run.config.made_by["git_commit"] != "unknown"
        first = run.config.earlier_epochs + 1
        assert [row["epoch"] for row in run.history] == list(range(first, first + len(run.history)))


def copy_run(
    run: Path, folder: Path, accuracy: float, changes: dict[str, Any], recipe: dict[str, Any]
) -> None:
    """Copy an evaluated run with another accuracy and a changed configuration."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("*.keras", "checkpoints"))
    config = json.loads((folder / "config.json").read_text()) | {"recipe_name": "plain"} | changes
    config["recipe"] |= recipe
    (folder / "config.json").write_text(json.dumps(config))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["test"]["accuracy"] = accuracy
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_page_shows_mean_spread_and_difference(small_run: Path, tmp_path: Path) -> None:
    """Two seeds share a row with mean, spread and difference from the published figure."""
    for seed, accuracy in ((1, 0.90), (2, 0.92)):
        name = f"run-{seed}"
        copy_run(
            small_run,
            tmp_path / "runs" / name,
            accuracy,
            {"name": name, "seed": seed},
            {"published": 0.9104},
        )
    page = render_results(read_runs(tmp_path / "runs"))
    ((_, recipe, parameters, macs, epochs, seeds, measured, published, difference, *_),) = rows(
        page, "cnn-1conv"
    )
    assert recipe.startswith("`plain`: 3 epochs")
    assert (parameters, macs, seeds) == ("693,962", "888,192", "2")
    assert epochs == "3 of 10"
    assert (measured, published, difference) == ("91.00% ± 1.41", "91.04%", "-0.04")


def test_page_names_the_unit_of_shear_nearer_to_the_published_gain(
    small_run: Path, tmp_path: Path
) -> None:
    """The page names the unit whose gain is nearer to the published gain."""
    for name, augmentation, published, accuracy in (
        ("first", "none", 0.91, 0.905),
        ("some", "tutorial-degrees", 0.92, 0.914),
        ("more", "tutorial-radians", 0.92, 0.93),
    ):
        continues = name != "first"
        changes = {"name": name, "continued_from": "first" if continues else None}
        recipe = {"augmentation": augmentation, "published": published, "continues": continues}
        copy_run(small_run, tmp_path / name, accuracy, changes, recipe)
    page = render_results(read_runs(tmp_path))
    assert "| `some` | `first` | 90.50% | 91.40% | +0.90 | +1.00 |" in page
    assert "+0.90 points with 0.3 degrees (seeds: 1)" in page
    assert "The published gain is +1.00 points, so 0.3 degrees fits better." in page
    assert "The two gains differ by 1.60 points" in page


@pytest.mark.parametrize(("epochs", "shown"), [(3, "3 of 50"), (50, "3")])
def test_shortened_run_differs_from_an_early_stop(
    small_run: Path, tmp_path: Path, epochs: int, shown: str
) -> None:
    """A run with fewer planned epochs shows both numbers; an early stop counts as a full run."""
    changes = {"architecture": "vgg-like", "recipe_name": "adam"}
    copy_run(
        small_run, tmp_path / "run", 0.9, changes, {"epochs": epochs, "early_stopping_patience": 5}
    )
    page = render_results(read_runs(tmp_path))
    assert rows(page, "vgg-like")[0][4] == shown
    assert ("train vgg-like --recipe adam" in page) == (epochs == 3)


@pytest.mark.parametrize("name", RECIPES)
def test_page_lists_recipes_without_a_run(tmp_path: Path, name: str) -> None:
    """Without runs, the page lists the command of each recipe."""
    page = render_results(read_runs(tmp_path))
    for recipe in RECIPES[name]:
        assert f"python -m training train {name} --recipe {recipe}" in page
