"""Own the worker processes: several servers on one port, replaced when they die, stopped together."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from service.inference.neighbours import NEIGHBOURS_VARIABLE, make_record
from service.machine.sizing import count_threads
from service.server.listening import listen
from service.server.worker import REPLACEMENT_VARIABLE, SOCKET_VARIABLE
from service.settings import Settings
from service.telemetry.logs import configure_logging
from service.telemetry.metrics import MULTIPROCESS_FOLDER, forget_worker

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1


def supervise(settings: Settings, workers: int) -> int:
    """Serve with ``workers`` processes until SIGTERM or SIGINT; return the exit code.

    A worker that a signal killed, or whose threads were stuck, is replaced. One that gives up otherwise has no model to
    serve, and neither would its successor: all are stopped then, and its exit code is returned. SIGHUP is passed on.
    """
    configure_logging(settings.log_level, settings.log_format)
    with TemporaryDirectory(prefix="service-") as shared_folder:
        environment = {
            "SERVICE_WORKERS": "1",
            "SERVICE_THREADS": str(count_threads(settings, workers)),
            MULTIPROCESS_FOLDER: shared_folder,
            NEIGHBOURS_VARIABLE: str(make_record(Path(shared_folder))),
        }
        processes = _Workers(settings, workers, environment)
        try:
            return processes.run()
        finally:
            processes.kill()


class _Workers:
    def __init__(self, settings: Settings, count: int, environment: dict[str, str]) -> None:
        self._environment = os.environ | environment
        self._stopping = False
        self._signals: list[
            int
        ] = []  # handled between the steps of run(): one may come while a worker is started
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        self._sockets = {self._start(listening): listening for listening in listen(settings, count)}

    def run(self) -> int:
        exit_code = 0
        while self._sockets:
            time.sleep(POLL_SECONDS)
            while self._signals:
                self._pass_on(self._signals.pop(0))
            for process in [process for process in self._sockets if process.poll() is not None]:
                listening = self._sockets.pop(process)
                forget_worker(process.pid, self._environment[MULTIPROCESS_FOLDER])
                if process.returncode > 0 and process.returncode != os.EX_TEMPFAIL:
                    exit_code = process.returncode
                    self._pass_on(signal.SIGTERM)
                if not self._stopping:
                    log.error(
                        "worker %d ended with code %d and is replaced",
                        process.pid,
                        process.returncode,
                    )
                    self._environment[REPLACEMENT_VARIABLE] = "1"
                    self._sockets[self._start(listening)] = listening
        return exit_code

    def _start(self, listening: socket.socket) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "service", "serve"]
        # A session of its own, so that Ctrl-C reaches the supervisor alone, and each worker once. Nothing is written to
        # the pipe: it ends when this process does, and a worker takes that as its sign to stop.
        # Until it has a handler of its own, SIGHUP would kill it; what is ignored stays so in a child.
        handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # It may be gone: what lies in a folder for temporary files is deleted now and then.
        Path(self._environment[MULTIPROCESS_FOLDER]).mkdir(exist_ok=True)
        try:
            return subprocess.Popen(  # noqa: S603  our own interpreter
                command,
                env=self._environment | {SOCKET_VARIABLE: str(listening.fileno())},
                pass_fds=[listening.fileno()],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGHUP, handler)

    def kill(self) -> None:
        for process in self._sockets:
            process.kill()

    def _pass_on(self, number: int) -> None:
        if number != signal.SIGHUP:
            self._stopping = True
            for listening in self._sockets.values():
                listening.close()  # the workers have their own; connections that none takes shall be refused
        for process in self._sockets:
            process.send_signal(number)
