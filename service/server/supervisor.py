"""The supervisor: starts the worker processes, replaces dead workers, and stops all together."""

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

from service.errors import TemporaryFolderError
from service.machine.sizing import count_threads
from service.server.assignment import Assignment
from service.server.environment import log_unknown
from service.server.listening import listen
from service.settings import Settings
from service.telemetry.logs import configure_logging
from service.telemetry.shared_files import forget_worker

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1


def supervise(settings: Settings, workers: int) -> int:
    """Serve with ``workers`` processes until SIGTERM or SIGINT; return the exit code.

    A worker that was killed, or that has lost its threads or its device (``EX_TEMPFAIL``), is
    replaced. A worker that exits with another error has no model to serve, and a replacement would
    have none either. Then all workers are stopped, and the failed worker's exit code is returned.
    SIGHUP is passed on to the workers.

    Raises:
        TemporaryFolderError: There is no writable folder for the metrics.
    """
    configure_logging(settings.log_level, settings.log_format)
    log_unknown()
    threads = count_threads(settings, workers)
    with _make_metrics_folder() as metrics_folder:
        team = _Workers(settings, threads, metrics_folder)
        try:
            team.start(listen(settings, workers))
            return team.run()
        finally:
            team.kill()


def _make_metrics_folder() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="service-")
    except OSError as error:
        raise TemporaryFolderError(
            f"several workers share their metrics in a temporary folder, and none is writable: "
            f"{error.strerror or error}; mount one on /tmp, name one in TMPDIR, "
            "or set SERVICE_WORKERS=1"
        ) from error


class _Workers:
    """The worker processes, each with its own listening socket."""

    def __init__(self, settings: Settings, threads: int, metrics_folder: str) -> None:
        self._settings = settings.model_dump(mode="json")
        self._threads = threads
        self._metrics_folder = metrics_folder
        self._sockets: dict[subprocess.Popen[bytes], socket.socket] = {}
        self._is_stopping = False
        self._exit_code = 0
        # A signal may arrive while a worker starts, so it is only recorded. run() handles it later.
        self._signals: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))

    def start(self, sockets: list[socket.socket]) -> None:
        for listening in sockets:
            self._start_worker(listening, is_replacement=False)

    def run(self) -> int:
        while self._sockets:
            time.sleep(POLL_SECONDS)
            while self._signals:
                self._pass_on(self._signals.pop(0))
            for process in list(self._sockets):
                if process.poll() is not None:
                    self._handle_end(process)
        return self._exit_code

    def kill(self) -> None:
        for process in self._sockets:
            process.kill()

    def _start_worker(self, listening: socket.socket, *, is_replacement: bool) -> None:
        descriptor = listening.fileno()
        assignment = Assignment(
            descriptor, self._threads, is_replacement, self._metrics_folder, self._settings
        )
        # The folder may be gone: the system deletes old temporary files now and then.
        Path(self._metrics_folder).mkdir(exist_ok=True)
        # SIGHUP would kill a worker that has no handler yet. The supervisor ignores SIGHUP while it
        # starts the worker, because a child inherits ignored signals.
        handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve"],
                env=assignment.to_environment(),
                pass_fds=[descriptor],
                # Nothing is written to this pipe. It closes when the supervisor ends, even if the
                # supervisor is killed, and the worker then stops.
                stdin=subprocess.PIPE,
                # In its own session, the worker does not get Ctrl-C from the terminal, only from
                # the supervisor.
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGHUP, handler)
        self._sockets[process] = listening

    def _handle_end(self, process: subprocess.Popen[bytes]) -> None:
        listening = self._sockets.pop(process)
        try:
            forget_worker(process.pid, Path(self._metrics_folder))
        except OSError as error:  # the other workers go on, also on a full disk
            log.error("the counts of worker %d are lost: %s", process.pid, error)
        code = process.returncode
        if code > 0 and code != os.EX_TEMPFAIL:
            self._exit_code = code
            self._pass_on(signal.SIGTERM)
        if not self._is_stopping:
            log.error("worker %d ended with exit code %d and is replaced", process.pid, code)
            self._start_worker(listening, is_replacement=True)

    def _pass_on(self, number: int) -> None:
        """Send the signal to all workers; every signal but SIGHUP also stops the service."""
        if number != signal.SIGHUP:
            self._is_stopping = True
            # The workers have their own copies of the sockets. If the supervisor closes its copies,
            # the kernel rejects new connections as soon as the workers stop listening.
            for listening in self._sockets.values():
                listening.close()
        for process in self._sockets:
            process.send_signal(number)
