"""The server process: it serves until a signal stops it, or until it has no working model."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import suppress
from types import FrameType

import uvicorn

from service.app import create_app
from service.inference.predictor import Predictor
from service.server.assignment import Assignment
from service.server.environment import log_unknown
from service.server.listening import listen
from service.server.protocol import LimitedProtocol
from service.settings import Settings
from service.telemetry.logs import configure_logging

log = logging.getLogger(__name__)

GARBAGE_THRESHOLD = 50_000  # new objects before a collection; Python's default is 700 or 2000
THREAD_SECONDS = 0.5


def serve(settings: Settings, assignment: Assignment | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    The exit code is 0 after a signal, 1 if there is no working model, and 75 (``EX_TEMPFAIL``) if
    threads hang, or if the device fails for long after the service has served. A process without an
    ``assignment`` opens its own listening socket.
    """
    configure_logging(settings.log_level, settings.log_format)
    if assignment is None:
        log_unknown()
    # Pillow and NumPy warn about odd images and tensors, and Python remembers each warning forever.
    warnings.simplefilter("ignore")
    server = _Server(settings, assignment)
    # Uvicorn handles signals only while it runs, and raises the signal that stopped it again at the
    # end. Without these handlers, a signal before the start or at the end would kill the process.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, server.handle_exit)
    with _listening_socket(settings, assignment) as listening:
        server.run([listening])
    exit_code = server.exit_code if server.started else 1
    server.predictor.close()  # uvicorn skips the end of the application after a second Ctrl-C
    server.predictor.models.close()
    if not _threads_end():
        # A normal exit would wait for them. No client waits for their images any more.
        logging.shutdown()
        os._exit(exit_code)
    return exit_code


def _threads_end() -> bool:
    """Return whether the threads end soon. One with a large image or a hung device does not."""
    deadline = time.monotonic() + THREAD_SECONDS
    others = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and not thread.daemon
    ]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in others)


def _listening_socket(settings: Settings, assignment: Assignment | None) -> socket.socket:
    if assignment is None:
        return listen(settings)[0]
    return socket.socket(fileno=assignment.socket_number)


class _Server(uvicorn.Server):
    """Uvicorn with a grace period.

    After SIGTERM, the service is unready and rejects uploads for ``grace_seconds``. Then uvicorn
    closes the connections.
    """

    def __init__(self, settings: Settings, assignment: Assignment | None) -> None:
        app = create_app(
            settings,
            on_failure=self._fail,
            # A replacement that accepted connections before its models are loaded would reject
            # uploads that the other workers can answer.
            starts_with_models=assignment is not None and assignment.is_replacement,
            threads=assignment.threads if assignment else None,
            metrics_folder=assignment.metrics_folder if assignment else None,
        )
        self.exit_code = 0
        self.predictor: Predictor = app.state.predictor
        self._is_supervised = assignment is not None
        self._grace_seconds = settings.grace_seconds
        self._stuck_seconds = max(settings.stuck_seconds, settings.request_timeout_seconds)
        self._check_seconds = settings.check_interval_seconds
        super().__init__(
            uvicorn.Config(
                app,
                http=LimitedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                workers=1,  # else uvicorn reads WEB_CONCURRENCY, which may hold no number
                timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]
                timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve; reload the models on SIGHUP, and stop when the supervisor is gone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(
            signal.SIGHUP,
            lambda: asyncio.run_coroutine_threadsafe(self.predictor.models.reload(), loop),
        )
        if self._is_supervised:
            loop.add_reader(sys.stdin, self._stop_with_supervisor)
        threading.Thread(target=self._watch, args=[loop], name="watch", daemon=True).start()
        await super().startup(sockets)
        # Freeze the imported objects and collect rarely: requests leave almost no reference cycles.
        # A collection that searched the imported objects stalled all requests for 40 ms.
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal, or Ctrl-C, skips the grace period."""
        is_draining = self.predictor.models.status == "draining"
        self.predictor.models.drain()
        if sig == signal.SIGTERM and not is_draining:
            timer = threading.Timer(self._grace_seconds, super().handle_exit, (sig, frame))
            timer.daemon = True  # a second signal does not wait for it
            timer.start()
        else:
            super().handle_exit(sig, frame)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the process if its event loop hangs: it runs short batches itself."""
        has_run = threading.Event()
        with suppress(RuntimeError):  # the event loop is closed
            while True:
                loop.call_soon_threadsafe(has_run.set)
                # A process that was paused gets another second.
                if not has_run.wait(self._stuck_seconds) and not has_run.wait(1):
                    log.critical("the event loop hangs: a batch has not ended")
                    os._exit(os.EX_TEMPFAIL)
                has_run.clear()
                time.sleep(self._check_seconds)

    def _stop_with_supervisor(self) -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin)
        self.handle_exit(signal.SIGTERM, None)

    def _fail(self) -> None:
        is_lost = any(model.has_lost_device for model in self.predictor.models)
        self.exit_code = os.EX_TEMPFAIL if self.predictor.is_stuck or is_lost else 1
        self.should_exit = True
