"""Measure the service on a GPU within a few minutes.

Each step runs in a process of its own with a time limit and writes FOLDER/STEP.json, so a step that
crashes or hangs loses no other step's figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from service.machine.sizing import count_workers
from service.settings import Settings
from tests.benchmarks.gpu.machine import Report, ask_doctor, describe_machine
from tests.benchmarks.gpu.serving import (
    PHOTOS,
    SERVED,
    hide_gpu,
    load_service,
    load_tutorial,
    measure_ceilings,
    take_memory,
)
from tests.benchmarks.gpu.sessions import load_bundles, time_sessions
from tests.e2e.server import ROOT

Parts = Iterator[tuple[str, Report]]
CPU_WORKERS = count_workers(Settings(device="cpu"))
LEAST_SECONDS = 5  # a step that has less left is not started

# The most important steps come first, because the minutes may not suffice for all of them.
STEPS: dict[str, tuple[Callable[[argparse.Namespace], Report | Parts], float]] = {
    "machine": (lambda asked: describe_machine(asked.device), 20),
    "bundles": (lambda asked: load_bundles(asked.device, asked.data), 60),
    "service": (lambda asked: load_service(asked.device, SERVED, (1, 4, 8)), 90),
    "photos": (lambda asked: load_service(asked.device, PHOTOS, (1, 4)), 60),
    "sessions": (lambda asked: time_sessions(asked.device), 90),
    "taken-memory": (lambda asked: take_memory(asked.device), 60),
    "tutorial": (lambda asked: load_tutorial(asked.device), 45),
    "hidden-gpu": (lambda _: hide_gpu(), 30),
    "doctor": (lambda asked: ask_doctor(asked.device), 20),
    "service-on-cpu": (lambda _: load_service("cpu", SERVED, (CPU_WORKERS,)), 60),
    "photos-on-cpu": (lambda _: load_service("cpu", PHOTOS, (CPU_WORKERS,)), 60),
    "ceilings": (lambda _: measure_ceilings(), 45),
}
"""What each step does, and its limit in seconds."""


def main() -> None:
    """Run the steps in turn until the minutes are over; note after each how it ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--minutes", type=float, default=4, help="limit for all steps together")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--step", choices=STEPS, help="run this step alone, in this process")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    if asked.step:
        write_report(asked.output / f"{asked.step}.json", STEPS[asked.step][0](asked))
        return
    end = time.monotonic() + 60 * asked.minutes
    endings: dict[str, str] = {}
    for name, (_, limit) in STEPS.items():
        endings[name] = run_step(name, asked, min(limit, end - time.monotonic()))
        (asked.output / "steps.json").write_text(json.dumps(endings, indent=1))
        print(f"{name}: {endings[name]}", flush=True)


def write_report(path: Path, report: Report | Parts) -> None:
    """Write a report; one that comes in parts is written after each part."""
    if isinstance(report, dict):
        path.write_text(json.dumps(report, indent=1))
        return
    written: Report = {}
    for name, part in report:
        written[name] = part
        path.write_text(json.dumps(written, indent=1))


def run_step(name: str, asked: argparse.Namespace, seconds: float) -> str:
    """Run one step in a process of its own; return how it ended."""
    if seconds < LEAST_SECONDS:
        return "not started: no time left"
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--step", name]
    command += ["--device", asked.device, "--output", str(asked.output.resolve())]
    command += ["--data", str(asked.data.resolve())] if asked.data else []
    started = time.monotonic()
    with (asked.output / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()  # a server would hold the GPU's memory
            process.kill()
            return f"stopped after {seconds:.0f} s"
    took = f"{time.monotonic() - started:.0f} s"
    return f"failed with exit code {code} after {took}; see {name}.log" if code else took


if __name__ == "__main__":
    main()
