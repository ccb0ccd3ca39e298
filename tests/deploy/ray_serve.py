"""The application on a real, local Ray Serve."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import yaml

from tests.e2e.server import ROOT, free_port

CONFIG = ROOT / "deploy/ray/serve.yaml"
GPU_CONFIG = ROOT / "deploy/ray/serve-gpu.yaml"
REPLICA = "ray::ServeReplica:fashion-classifier"

Options = dict[str, Any]


def read_application(config: str) -> dict[str, Any]:
    """Read the only application of a configuration."""
    (application,) = yaml.safe_load(config)["applications"]
    return dict(application)


def read_options(**environment: str) -> Options:
    """Return the options of the deployment as serve.yaml has them, with more variables."""
    application = read_application(CONFIG.read_text())
    options = copy.deepcopy(application["deployments"][0])
    variables = application["runtime_env"]["env_vars"] | environment
    options["ray_actor_options"]["runtime_env"] = {"env_vars": variables}
    return dict(options)


@dataclass(frozen=True)
class RayServe:
    """A running Ray Serve and the process that deploys to it."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        """Address of the application."""
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, options: Options) -> None:
        """Deploy, and wait until the new replicas answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(options) + "\n")
        self.process.stdin.flush()
        lines = iter(self.process.stdout.readline, "")
        assert "deployed" in map(str.strip, lines), "Ray Serve has ended; its log is above"

    def find_replicas(self) -> list[psutil.Process]:
        """Return the processes of the replicas."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if " ".join(process.cmdline()).startswith(REPLICA):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def ray_serve(cores: int = 1, **environment: str) -> Iterator[RayServe]:
    """Start Ray Serve without an application, and stop it at the end."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.serve_driver", str(port), str(cores)],
        cwd=ROOT,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield RayServe(process, port)
    finally:
        try:
            process.communicate(timeout=60)  # closes the input
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
