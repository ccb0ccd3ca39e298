"""Measures offline runs: ``python -m tests.benchmarks.offline``. Needs the extra ``ray``.

The machine must be idle. All rows classify the same 800x600 JPEGs; the list names each many times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from service.imaging.model_input import read_image
from service.inference.classifier import MAX_BATCH, load_classifier
from service.settings import Settings
from tests import golden
from tests.benchmarks.bench import photo, request
from tests.benchmarks.pace import closed_loop, port_of
from tests.e2e.server import ROOT, serving

PHOTOS = 200
CONNECTIONS = 16


def main() -> None:
    """Print a table of images a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    photos = [photo(image, generator) for image in golden.images()[:PHOTOS]]
    print("| what | images a second |\n|---|---:|")
    print(f"| `session.run` alone, one thread | {measure_session(photos):,.0f} |")
    print(f"| `POST /predict`, one worker | {measure_http(photos):,.0f} |")
    with TemporaryDirectory() as folder:
        for number, content in enumerate(photos):
            (Path(folder) / f"{number}.jpg").write_bytes(content)
        for workers in arguments.workers:
            rate = measure_run(Path(folder), arguments.images, workers)
            print(f"| offline, {workers} workers, {arguments.images:,} images | {rate:,.0f} |")


def measure_session(photos: list[bytes], seconds: float = 5) -> float:
    """Return the images a second of the model alone, in the largest batches of the service."""
    settings = Settings(device="cpu")
    classifier = load_classifier(settings.models[-1], "cpu")
    sources = [
        read_image(data, classifier.input_spec, settings.max_image_pixels).image
        for data in photos[:MAX_BATCH]
    ]
    runs, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        classifier.classify(sources)
        runs += 1
    return runs * MAX_BATCH / (time.perf_counter() - started)


def measure_http(photos: list[bytes], seconds: float = 5) -> float:
    """Return the images a second of one worker, on 16 connections of this machine."""
    requests = [request("/predict", data, "image/jpeg", b'"class_name"') for data in photos]
    with serving(device="cpu") as server:
        return asyncio.run(closed_loop(port_of(server), requests, CONNECTIONS, seconds)).rate


def measure_run(folder: Path, images: int, workers: int) -> float:
    """Return the images a second of a whole run, with the start of Ray and its workers."""
    paths = [f"{folder}/{number % PHOTOS}.jpg" for number in range(images)]
    (folder / "list.txt").write_text("\n".join(paths))
    settings = {"SERVICE_DEVICE": "cpu", "SERVICE_WORKERS": str(workers), "SERVICE_THREADS": "1"}
    command = [sys.executable, "-m", "service.offline", f"{folder}/list.txt", "--output"]
    output = subprocess.run(
        [*command, f"{folder}/out-{workers}"],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    counted = re.search(r"(\d+) images, 0 of them with an error, in (\d+) s", output)
    assert counted is not None, output
    return int(counted[1]) / int(counted[2])


if __name__ == "__main__":
    main()
