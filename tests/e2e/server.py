"""A real server process for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.service.images import encode, noise

ROOT = Path(__file__).parents[2]
SLOW_IMAGE = encode(noise(6000, 6000), "PNG", compress_level=1)
"""Takes a few tenths of a second to decode, or seconds on a busy machine."""


@dataclass(frozen=True)
class Server:
    """A running ``python -m service serve``."""

    process: subprocess.Popen[str]
    url: str
    log: IO[str]

    def get(self, path: str) -> httpx2.Response:
        """GET a path."""
        return httpx2.get(self.url + path, timeout=30)

    def predict(self, content: bytes) -> httpx2.Response:
        """Upload an image in a form."""
        return httpx2.post(self.url + "/predict", files={"file": content}, timeout=30)

    def connect(self) -> socket.socket:
        """Open a connection."""
        address = urlsplit(self.url)
        return socket.create_connection((str(address.hostname), address.port or 0), timeout=30)

    def metric(self, name: str) -> int:
        """Read a metric, summed over its labels; it is 0 before its first event."""
        lines = self.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)

    def wait_until_ready(self) -> None:
        """Wait until /health answers 200."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if self.get("/health").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.05)
        exit_code, log = self.process.poll(), self.read_log()[-2000:]
        raise AssertionError(f"the server did not become ready, exit code {exit_code}; log: {log}")

    def wait_until_all_serve(self, workers: int) -> None:
        """Wait until each worker has loaded its models; a worker without a model answers 503."""
        models = len(self.get("/health").json()["models"])
        wait_until(lambda: self.read_log().count("serves on") >= workers * models, 60)

    def read_log(self) -> str:
        """Read the log so far, without a change of the server's position in the file."""
        file = self.log.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()


def wait_until(
    condition: Callable[[], bool], seconds: float = 30, why: Callable[[], object] = lambda: None
) -> None:
    """Wait until ``condition()`` holds; fail with ``why()`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.01)


def start(log: IO[str] | int = subprocess.PIPE, **settings: object) -> subprocess.Popen[str]:
    """Start ``python -m service serve`` with ``settings``; its log goes to ``log``."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("SERVICE_")
    }
    environment |= {f"SERVICE_{key.upper()}": str(value) for key, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        cwd=ROOT,
        env=environment,
        stderr=log,
        text=True,
    )


@contextmanager
def serving(**settings: object) -> Iterator[Server]:
    """Run a server, wait until it is ready, and stop it with SIGTERM."""
    port = free_port()
    # The log is a file, not a pipe: nobody would read a pipe, and a full pipe blocks the server.
    with TemporaryFile("w+") as log:
        process = start(log, port=port, **{"workers": 1} | settings)
        try:
            server = Server(process, f"http://127.0.0.1:{port}", log)
            server.wait_until_ready()
            server.wait_until_all_serve(int(str(settings.get("workers", 1))))
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            finally:
                process.kill()


def run_at_start(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every Python process that starts later run ``code`` first; write it into ``folder``."""
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
