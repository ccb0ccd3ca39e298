"""Loads the service for an hour and records its memory, for ``docs/performance.md``: ``make soak``.

The load is an open loop, so a slow machine gets the same load.
"""

from __future__ import annotations

import argparse
import asyncio
from itertools import chain, cycle
from pathlib import Path

import numpy as np
import psutil
import uvloop

from tests import golden
from tests.benchmarks.bench import DEFAULT, SERVED, photo, png_requests, replace_part, request
from tests.benchmarks.pace import Request, open_loop, port_of
from tests.benchmarks.torture import LARGE_IMAGE
from tests.e2e.server import Server, serving

WIDTHS = (400, 800, 800, 800, 1600)
CONNECTIONS = 16
SAMPLES = 60


def mixed_requests(server: Server) -> list[Request]:
    """Return small images and photos in turns; some photos are just below the limit on pixels.

    A photo's expected class is the server's first answer.
    """
    generator = np.random.default_rng(0)
    photos = [
        photo(image, generator, width)
        for image, width in zip(golden.images(), WIDTHS * 8, strict=False)
    ]
    photo_requests = []
    for upload in [*photos, LARGE_IMAGE]:
        name = server.predict(upload).json()["class_name"]
        expected = f'"class_name":"{name}"'.encode()
        photo_requests.append(request("/predict", upload, "image/*", expected))
    pngs = png_requests(DEFAULT)
    return list(chain.from_iterable(zip(pngs, cycle(photo_requests), strict=False)))


async def soak(rate: float, seconds: float) -> str:
    """Load the default model at ``rate`` requests a second; return tables of memory and answers."""
    with serving(**SERVED | {"models": DEFAULT}) as server:
        process = psutil.Process(server.process.pid)
        workers = process.children() or [process]
        names = " | ".join(f"worker {number}" for number in range(1, len(workers) + 1))
        rows = [f"| minutes | {names} |", "|---:" * (len(workers) + 1) + "|", _row(0, workers)]
        requests = mixed_requests(server)
        # open_loop adds a quarter for its warm-up: 0.8 * 1.25 = 1.
        loop = open_loop(port_of(server), requests, rate, CONNECTIONS, seconds * 0.8)
        load = asyncio.create_task(loop)
        for number in range(1, SAMPLES + 1):
            await asyncio.sleep(seconds / SAMPLES)
            if number in {1, 5, 10, 20, 30, 40, 50, SAMPLES}:
                rows.append(_row(number * seconds / SAMPLES, workers))
        result = await load
    due = rate * result.duration_seconds
    answers = [f"| sent after the warm-up, {rate:g} a second | {due:,.0f} |"]
    answers += [f"| answered {status} | {n:,} |" for status, n in sorted(result.statuses.items())]
    table = ["| requests | |", "|---|---:|", *answers, f"| wrong answers | {result.wrong} |"]
    return "\n".join([*rows, "", *table])


def _row(seconds: float, workers: list[psutil.Process]) -> str:
    return f"| {seconds / 60:.0f} | {' | '.join(map(_resident_mib, workers))} |"


def _resident_mib(worker: psutil.Process) -> str:
    try:
        return f"{worker.memory_info().rss / 2**20:.0f}"
    except psutil.NoSuchProcess:
        return "gone"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=50, help="requests a second")
    parser.add_argument(
        "--output", type=Path, help="the document to update; without it, print only"
    )
    arguments = parser.parse_args()
    text = uvloop.run(soak(arguments.rate, arguments.seconds))
    print(text)
    if arguments.output:
        replace_part(arguments.output, "soak", text)


if __name__ == "__main__":
    main()
