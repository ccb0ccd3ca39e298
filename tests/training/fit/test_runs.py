"""The run folder: the commit of its code, and the photos that it learned from."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.fashion_mnist import SampleSource
from tests.training.making import make_config
from training.data.photos.collection import PhotoFolders
from training.errors import RunError
from training.fit.runs import (
    git_commit,
    load_checkpoint,
    load_model,
    read_config,
    read_history,
    read_metrics,
)

NAME = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]


def git(*words: str) -> str:
    """Run git in the current folder."""
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


def test_commit_says_whether_training_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uncommitted changes in training are named. Untracked files and other folders do not count."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() == "unknown"
    for folder in ("training", "docs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "code.py").write_text("before")
    git("init", "--quiet")
    git("add", ".")
    git(*NAME, "commit", "--quiet", "--message", "First")
    commit = git("rev-parse", "HEAD").strip()
    (tmp_path / "docs" / "code.py").write_text("after")
    (tmp_path / "training" / "new.py").touch()
    assert git_commit() == commit
    (tmp_path / "training" / "code.py").write_text("after")
    assert git_commit() == f"{commit}-dirty"


def test_run_without_photos_takes_none(tmp_path: Path) -> None:
    """Photos that are given to a run of the data set alone are an error, not passed over."""
    config = make_config(SampleSource(), name="grey", architecture="mlp-64-64")
    config.check_photos(None)
    with pytest.raises(RunError, match="grey learns from no photos: leave --photos and --worn out"):
        config.check_photos(PhotoFolders(tmp_path, tmp_path))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", read_config),
        ("history.csv", read_history),
        ("checkpoints/3.keras", lambda run: load_checkpoint(run / "checkpoints/3.keras")),
        ("metrics.json", read_metrics),
        ("model.keras", load_model),
    ],
)
def test_file_that_was_cut_off_is_named(
    small_run: Path, tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    """A file of a run that was copied in part gives one line that names it."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[:-20])
    with pytest.raises(RunError, match=f"{run / name} (is damaged|does not describe)"):
        read(run)
