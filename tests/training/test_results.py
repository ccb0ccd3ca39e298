"""The page of results: it says what the runs say, and the one in docs/ is current."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.training.fashion_mnist import ROOT
from training.architectures import ARCHITECTURES
from training.results import read_runs, render_results


def rows(page: str, architecture: str) -> list[list[str]]:
    """Find the rows of an architecture in the table of a page."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith(f"| `{architecture}` |")
    ]


def test_page_in_docs_is_current() -> None:
    """docs/results.md is what `python -m training report` writes."""
    output = ROOT / "docs" / "results.md"
    assert output.read_text() == render_results(ROOT / "runs", output)


def test_runs_in_the_repository_are_complete() -> None:
    """Every evaluated run says how it was made and has one row of history an epoch."""
    runs = read_runs(ROOT / "runs")
    assert runs
    for run in runs:
        assert run.folder.name == run.config.name
        assert run.config.made_by["git_commit"] != "unknown"
        assert [row["epoch"] for row in run.history] == [
            run.config.earlier_epochs + number for number in range(1, len(run.history) + 1)
        ]
        assert (run.folder / "curves.png").exists()


def test_page_shows_mean_spread_and_difference(small_run: Path, tmp_path: Path) -> None:
    """Two seeds become one row with their mean, spread and the difference from the published figure."""
    for seed, accuracy in ((1, 0.90), (2, 0.92)):
        folder = tmp_path / "runs" / f"run-{seed}"
        shutil.copytree(small_run, folder, ignore=shutil.ignore_patterns("*.keras", "checkpoints"))
        config = json.loads((folder / "config.json").read_text())
        config |= {"name": folder.name, "seed": seed, "recipe_name": "plain"}
        config["recipe"]["published"] = 0.9104
        (folder / "config.json").write_text(json.dumps(config))
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["test"]["accuracy"] = accuracy
        (folder / "metrics.json").write_text(json.dumps(metrics))
    page = render_results(tmp_path / "runs", tmp_path / "docs" / "results.md")
    ((_, recipe, parameters, macs, epochs, seeds, measured, published, difference, *_),) = rows(page, "cnn-1conv")
    assert recipe.startswith("`plain`: 3 epochs")
    assert (parameters, macs, seeds) == ("693,962", "888,192", "2")
    assert epochs == "3 of 10"
    assert (measured, published, difference) == ("91.00% ± 1.41", "91.04%", "-0.04")
    assert "![run-1](../runs/run-1/curves.png)" in page


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_page_names_every_recipe_that_was_not_run(tmp_path: Path, name: str) -> None:
    """Without runs the page lists the command of every published recipe."""
    page = render_results(tmp_path, tmp_path / "results.md")
    for recipe in ARCHITECTURES[name].recipes:
        assert f"python -m training train {name} --recipe {recipe}" in page
