"""The measurements on a GPU, taken on the CPU: only the device differs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import golden
from tests.benchmarks.gpu.__main__ import STEPS
from tests.e2e.server import ROOT

MODELS = ROOT / "models"


def measure(folder: Path, *arguments: str) -> str:
    """Run the measurements on the CPU; return what they print."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--device", "cpu"]
    command += ["--output", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("step", ["machine", "doctor"])
def test_step_writes_its_report(step: str, tmp_path: Path) -> None:
    """A step that runs alone leaves its report, which is not empty."""
    measure(tmp_path, "--step", step)
    assert json.loads((tmp_path / f"{step}.json").read_text())


def test_every_shipped_model_is_compared(tmp_path: Path) -> None:
    """The answers of each model in ``models/`` are compared with the CPU's and the golden set's."""
    measure(tmp_path, "--step", "bundles")
    report = json.loads((tmp_path / "bundles.json").read_text())
    assert {name.split("/")[0] for name in report} == {path.name for path in MODELS.iterdir()}
    assert all(each["parity"]["images"] == 300 for each in report.values())
    differences = {
        name.split("/")[0]: each["parity"]["difference_from_golden"]
        for name, each in report.items()
        if "difference_from_golden" in each["parity"]
    }
    assert differences.keys() == golden.TOLERANCES.keys()
    assert all(value < golden.TOLERANCES[name] for name, value in differences.items())


def test_hidden_gpu_is_reported_honestly(tmp_path: Path) -> None:
    """Without a visible GPU, ``cuda`` ends with exit code 1 and ``auto`` says ``cpu``."""
    measure(tmp_path, "--step", "hidden-gpu")
    report = json.loads((tmp_path / "hidden-gpu.json").read_text())
    assert report["exit_code_with_cuda"] == 1
    assert report["health_with_auto"]["models"][0]["device"] == "cpu"


def test_steps_end_with_the_minutes(tmp_path: Path) -> None:
    """When the time is up, the ending of every step is on the record, and the rest not started."""
    printed = measure(tmp_path, "--minutes", "0.1")
    endings = json.loads((tmp_path / "steps.json").read_text())
    assert list(endings) == list(STEPS)
    assert endings["doctor"] == "not started: no time left"
    assert len(printed.splitlines()) == len(STEPS)
