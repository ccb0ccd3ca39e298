"""Own the worker processes: several servers on one port, replaced when they die, stopped together."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

from service.listening import listen
from service.server import REPLACEMENT_VARIABLE, SOCKET_VARIABLE
from service.settings import Settings
from service.telemetry import MULTIPROCESS_FOLDER, configure_logging, forget_worker

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1


def supervise(settings: Settings) -> int:
    """Serve with ``settings.workers`` processes until SIGTERM or SIGINT; return the exit code.

    A worker that a signal killed is replaced. One that gives up by itself has no model to serve, and neither would its
    successor: all are stopped then, and its exit code is returned. SIGHUP is passed on.
    """
    configure_logging(settings.log_level, settings.log_format)
    with listen(settings) as listening, TemporaryDirectory(prefix="service-metrics-") as metrics_folder:
        workers = _Workers(settings.workers, listening, metrics_folder)
        try:
            return workers.run()
        finally:
            workers.kill()


class _Workers:
    def __init__(self, count: int, listening: socket.socket, metrics_folder: str) -> None:
        self._socket = listening.fileno()
        self._metrics_folder = metrics_folder
        self._environment = os.environ | {
            "SERVICE_WORKERS": "1",
            SOCKET_VARIABLE: str(self._socket),
            MULTIPROCESS_FOLDER: metrics_folder,
        }
        self._stopping = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._pass_on(number))
        self._processes = [self._start() for _ in range(count)]

    def run(self) -> int:
        exit_code = 0
        while self._processes:
            time.sleep(POLL_SECONDS)
            for process in [process for process in self._processes if process.poll() is not None]:
                self._processes.remove(process)
                forget_worker(process.pid, self._metrics_folder)
                exit_code = max(exit_code, process.returncode)
                if process.returncode > 0:
                    self._pass_on(signal.SIGTERM)
                if not self._stopping:
                    log.error("worker %d ended with code %d and is replaced", process.pid, process.returncode)
                    self._environment[REPLACEMENT_VARIABLE] = "1"
                    self._processes.append(self._start())
        return exit_code

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service", "serve"]
        # A session of its own, so that Ctrl-C reaches the supervisor alone, and each worker once. Nothing is written to
        # the pipe: it ends when this process does, and a worker takes that as its sign to stop.
        return subprocess.Popen(  # noqa: S603  our own interpreter
            command,
            env=self._environment,
            pass_fds=[self._socket],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _pass_on(self, number: int) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP
        for process in self._processes:
            process.send_signal(number)
