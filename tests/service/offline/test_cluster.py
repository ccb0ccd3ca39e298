"""Whole offline runs on a real Ray cluster of one core."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.e2e.server import ROOT

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.timeout(900),
]

PARTS, IMAGES_PER_PART = 6, 40
WORKER = "ray::MapWorker"


@pytest.fixture
def source(images: Path, tmp_path: Path) -> Path:
    """Parquet file of several parts: photos, and one missing file in each part."""
    paths = [str(images / "photo.png")] * (IMAGES_PER_PART - 1) + [str(images / "missing.png")]
    table = pa.table({"path": paths * PARTS})
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=IMAGES_PER_PART)
    return tmp_path / "in.parquet"


def start(
    source: Path, output: Path, *, model: str | None = None, **settings: str
) -> subprocess.Popen[str]:
    """Start a run with one worker."""
    settings = {"SERVICE_DEVICE": "cpu", "SERVICE_WORKERS": "1"} | settings
    command = [sys.executable, "-m", "service.offline", str(source), "--output", str(output)]
    return subprocess.Popen(
        [*command, *(["--model", model] if model else [])],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return the exit code, the line with the counts, and the standard error."""
    output, errors = run.communicate(timeout=600)
    # Ray writes the messages of its workers between the lines of the run.
    counts = [line for line in output.splitlines() if " of them with an error, in " in line]
    return run.returncode, "".join(counts), errors


def wait_for_answers(run: subprocess.Popen[str], output: Path) -> None:
    """Wait until the first part has answers."""
    while not list(output.glob("[!_]*.parquet")):
        assert run.poll() is None, finish(run)
        time.sleep(0.02)


def count_rows(output: Path) -> dict[bool, int]:
    """Count the rows with an answer (True) and with an error (False)."""
    errors = parquet.read_table(output).column("error")
    return {True: errors.null_count, False: len(errors) - errors.null_count}


EXPECTED = {True: PARTS * (IMAGES_PER_PART - 1), False: PARTS}


def test_killed_worker_loses_nothing(source: Path, tmp_path: Path) -> None:
    """If a worker is killed, another one finishes its part, and each image has one row."""
    run = start(source, tmp_path / "out")
    wait_for_answers(run, tmp_path / "out")
    workers = [
        process
        for process in psutil.Process(run.pid).children(recursive=True)
        if process.name().startswith(WORKER[:15])
    ]
    assert workers
    for worker in workers:
        worker.kill()
    code, line, errors = finish(run)
    assert code == 0, errors
    assert line.startswith(f"{PARTS * IMAGES_PER_PART} images, {PARTS} of them with an error")
    assert count_rows(tmp_path / "out") == EXPECTED


def test_second_run_goes_on(source: Path, tmp_path: Path) -> None:
    """A killed run and a second one answer each image once; a third one has nothing to do."""
    output = tmp_path / "out"
    run = start(source, output)
    wait_for_answers(run, output)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    before = {path: path.stat().st_mtime_ns for path in output.glob("[!_]*.parquet")}
    code, line, errors = finish(start(source, output))
    assert code == 0, errors
    done = len(before) * IMAGES_PER_PART
    assert line.startswith(f"{PARTS * IMAGES_PER_PART - done} images")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert count_rows(output) == EXPECTED
    code, line, errors = finish(start(source, output))
    assert line.startswith("0 images"), errors


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"SERVICE_WORKERS": "none"}, 2, "SERVICE_WORKERS=none"),
        ({"SERVICE_MODELS": "missing"}, 1, "manifest.json is missing"),
        ({"SERVICE_CONFIG": "missing.toml"}, 2, "missing.toml is not a file"),
    ],
)
def test_mistake_is_named(
    source: Path, tmp_path: Path, settings: dict[str, str], code: int, message: str
) -> None:
    """A wrong setting ends the run at once with its name and an exit code."""
    ended, _, errors = finish(start(source, tmp_path / "out", **settings))
    assert ended == code
    assert message in errors
    assert "Traceback" not in errors


def test_workers_fit_on_machines_of_different_sizes(source: Path, tmp_path: Path) -> None:
    """Two workers of a cluster of four and two cores get two cores each, so that both can start."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    workers: set[int] = set()
    try:
        cluster.add_node(num_cpus=2)
        settings = {"RAY_ADDRESS": cluster.address, "SERVICE_WORKERS": "2"}
        run = start(source, tmp_path / "out", **settings)
        while run.poll() is None:
            processes = psutil.process_iter(["name"])
            workers |= {each.pid for each in processes if each.info["name"].startswith(WORKER)}
            time.sleep(0.1)
        code, line, errors = finish(run)
    finally:
        cluster.shutdown()
    assert code == 0, errors
    assert line.startswith(f"{PARTS * IMAGES_PER_PART} images")
    assert len(workers) == 2


def test_unknown_model_is_named(source: Path, tmp_path: Path) -> None:
    """A model that is not served ends the run with the names of those that are."""
    run = start(source, tmp_path / "out", model="garmets")
    code, _, errors = finish(run)
    assert code == 1
    assert "model=garmets: this model is not served; name one of resnet-8, garments" in errors
    assert "Traceback" not in errors


def test_missing_gpu_is_named(source: Path, tmp_path: Path) -> None:
    """Without a GPU, the device cuda ends the run with a message."""
    code, _, errors = finish(start(source, tmp_path / "out", SERVICE_DEVICE="cuda"))
    assert code == 1
    assert "SERVICE_DEVICE=cuda, but Ray knows no machine with a GPU" in errors
    assert "Traceback" not in errors


def test_missing_source_is_named(tmp_path: Path) -> None:
    """A source without files ends the run at once with a message."""
    code, _, errors = finish(start(tmp_path / "nothing", tmp_path / "out"))
    assert code == 1
    assert "no file is found" in errors
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
