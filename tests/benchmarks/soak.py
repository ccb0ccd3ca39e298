"""Load the service steadily for an hour, see what its workers' memory does, and write it into ``docs/performance.md``.

Run by ``make soak``. The load is in an open loop, so that a busy machine makes it no lighter.
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
from tests.benchmarks.pace import Request, open_loop
from tests.benchmarks.torture import LARGE_IMAGE
from tests.e2e.server import Server, serving

WIDTHS = (400, 800, 800, 800, 1600)
CONNECTIONS = 16
SAMPLES = 60


def mixed_requests(server: Server) -> list[Request]:
    """Take small images and photos of several sizes in turns, one of them as large as is allowed.

    Their class is what the server said of them first.
    """
    generator = np.random.default_rng(0)
    photos = [
        photo(image, generator, width)
        for image, width in zip(golden.images(), WIDTHS * 8, strict=False)
    ]
    photo_requests = []
    for upload in [
        *photos,
        LARGE_IMAGE,
    ]:  # a request that takes long is watched by a task of its own
        name = server.predict(upload).json()["class_name"]
        photo_requests.append(
            request("/predict", upload, "image/*", f'"class_name":"{name}"'.encode())
        )
    pngs = png_requests(DEFAULT)
    return list(chain.from_iterable(zip(pngs, cycle(photo_requests), strict=False)))


async def soak(rate: float, seconds: float) -> str:
    """Load the default model at ``rate`` requests a second; return a table and a line on the answers."""
    with serving(**SERVED | {"model": DEFAULT}) as server:
        workers = psutil.Process(server.process.pid).children() or [
            psutil.Process(server.process.pid)
        ]
        names = " | ".join(f"worker {number}" for number in range(1, len(workers) + 1))
        rows = [f"| minutes | {names} |", "|---:" * (len(workers) + 1) + "|", _row(0, workers)]
        port, requests = int(server.url.rsplit(":", 1)[1]), mixed_requests(server)
        # A quarter of its time is warm-up, which counts here.
        load = asyncio.create_task(open_loop(port, requests, rate, CONNECTIONS, seconds * 0.8))
        for number in range(1, SAMPLES + 1):
            await asyncio.sleep(seconds / SAMPLES)
            if number in {1, 5, 10, 20, 30, 40, 50, SAMPLES}:
                rows.append(_row(number * seconds / SAMPLES, workers))
        result = await load
    answers = ", ".join(
        f"{count:,} were answered {status}" for status, count in sorted(result.statuses.items())
    )
    due = (
        f"At {rate:g} requests a second; of {rate * result.duration_seconds:,.0f} after the warm-up"
    )
    return "\n".join(rows) + f"\n\n{due} {answers}; wrong: {result.wrong}."


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
        "--output", type=Path, help="the document whose figures to replace; printed without"
    )
    arguments = parser.parse_args()
    text = uvloop.run(soak(arguments.rate, arguments.seconds))
    print(text)
    if arguments.output:
        replace_part(arguments.output, "soak", text)


if __name__ == "__main__":
    main()
