"""Own the HTTP server: one process that serves until a signal, or until there is no model to be had."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from types import FrameType

import uvicorn

from service.app import create_app
from service.inference.predictor import Predictor
from service.server.listening import listen
from service.server.protocol import LimitedProtocol
from service.settings import Settings
from service.telemetry.logs import configure_logging

SOCKET_VARIABLE = "SERVICE_SOCKET"
"""The environment variable by which a supervisor hands its workers the listening socket."""
REPLACEMENT_VARIABLE = "SERVICE_REPLACEMENT"
"""The environment variable by which a supervisor tells a worker that others serve already."""

GARBAGE_THRESHOLD = 50_000  # objects, of 700


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT (exit code 0), until there is no model to be had (1), or threads are stuck (75)."""
    configure_logging(settings.log_level, settings.log_format)
    # Pillow and NumPy warn of odd images and tensors, and what was warned of is kept for ever.
    warnings.simplefilter("ignore")
    server = _Server(settings)
    # Until uvicorn takes the signals over, and when it has finished: it then raises the one that stopped it once more.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, server.handle_exit)
    with _inherited_socket() or listen(settings)[0] as listening:
        server.run([listening])
    exit_code = server.exit_code if server.started else 1
    if server.is_decoding:
        # The interpreter would wait for the thread, whatever image it is at, and its caller has gone.
        logging.shutdown()
        os._exit(exit_code)
    return exit_code


def _inherited_socket() -> socket.socket | None:
    """Return the listening socket of a worker; None if this process is its own."""
    number = os.environ.get(SOCKET_VARIABLE)
    return None if number is None else socket.socket(fileno=int(number))


class _Server(uvicorn.Server):
    """Uvicorn, with a grace period: on SIGTERM the service is unready and refuses uploads before connections close."""

    def __init__(self, settings: Settings) -> None:
        self.exit_code = 0
        # A replacement that took connections while its model loads would refuse what the other workers can answer.
        starts_with_model = REPLACEMENT_VARIABLE in os.environ
        self._app = create_app(settings, on_failure=self._fail, starts_with_model=starts_with_model)
        self._grace_seconds = settings.grace_seconds
        super().__init__(
            uvicorn.Config(
                self._app,
                http=LimitedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
            )
        )

    @property
    def is_decoding(self) -> bool:
        """Whether a thread is still at an image."""
        decoding: bool = self._app.state.predictor.is_decoding
        return decoding

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, to load the model again on SIGHUP, and to stop when the supervisor, if any, has gone."""
        predictor: Predictor = self._app.state.predictor
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(
            signal.SIGHUP, lambda: asyncio.run_coroutine_threadsafe(predictor.reload(), loop)
        )
        if SOCKET_VARIABLE in os.environ:
            loop.add_reader(sys.stdin, self._stop_with_supervisor)
        await super().startup(sockets)
        # A search for cycles through all that was imported held up everybody for 40 ms: hence not through that, and
        # seldom, for requests leave hardly any.
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal, or Ctrl-C, stops without a grace period."""
        drains_already = self._app.state.predictor.status == "draining"
        self._app.state.predictor.drain()
        if sig == signal.SIGTERM and not drains_already:
            threading.Timer(self._grace_seconds, super().handle_exit, (sig, frame)).start()
        else:
            super().handle_exit(sig, frame)

    def _stop_with_supervisor(self) -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin)
        self.handle_exit(signal.SIGTERM, None)

    def _fail(self) -> None:
        predictor: Predictor = self._app.state.predictor
        self.exit_code = os.EX_TEMPFAIL if predictor.is_stuck else 1
        self.should_exit = True
