"""Compares Ray Serve with the service itself: ``python -m tests.benchmarks.ray_serve``.

The machine must be idle, and needs the extra ``ray``. Both have as many processes with one thread
as there are cores. Each answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import os

from tests.benchmarks.bench import CONNECTIONS, DEFAULT, png_requests
from tests.benchmarks.pace import Request, closed_loop, port_of
from tests.deploy.ray_serve import ray_serve, read_options
from tests.e2e.server import serving


def main() -> None:
    """Print a table of right answers a second and of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    seconds = parser.parse_args().seconds
    cores = os.cpu_count() or 1
    requests = png_requests(DEFAULT)
    print("| server | connections | answers a second | p50, ms | p99, ms | wrong |")
    print("|---|---:|---:|---:|---:|---:|")
    with serving(device="cpu", workers=cores, models=DEFAULT) as server:
        measure("the service", port_of(server), requests, seconds)
    for name, variables in (
        ("Ray Serve", {}),
        ("Ray Serve with HAProxy", {"RAY_SERVE_ENABLE_HA_PROXY": "1"}),
    ):
        options = read_options(SERVICE_MODELS=str(DEFAULT))
        del options["autoscaling_config"]
        with ray_serve(cores, **variables) as ray:
            ray.deploy(options | {"num_replicas": cores, "max_ongoing_requests": 128})
            measure(name, ray.port, requests, seconds)


def measure(name: str, port: int, requests: list[Request], seconds: float) -> None:
    """Print the rows of a server."""
    for connections in CONNECTIONS:
        result = asyncio.run(closed_loop(port, requests, connections, seconds))
        p50, p99 = (f"{result.percentile_ms(percent):.1f}" for percent in (50, 99))
        print(
            f"| {name} | {connections} | {result.rate:,.0f} | {p50} | {p99} | {result.wrong} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
