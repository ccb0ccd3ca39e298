"""Runs the application on a local Ray Serve, for tests and benchmarks.

Arguments: the port, and the number of cores. Each line of the standard input has the options of the
deployment as JSON; the line "deployed" on the standard output says that they are in force.
"""

import json
import sys

import ray
from ray import serve

from deploy.ray.application import deployment


def main(port: int, cores: int) -> None:
    """Deploy the options of each line until the input ends."""
    ray.init(num_cpus=cores, include_dashboard=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 90})
    for line in sys.stdin:
        serve.run(deployment.options(**json.loads(line)).bind(), name="fashion-classifier")
        print("deployed", flush=True)
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
