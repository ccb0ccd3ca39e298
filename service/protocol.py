"""Own what a connection may cost before there is a request: uvicorn's protocol, with limits on a request's head."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import refuse_connection

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
HEAD_TIMEOUT_SECONDS = 10.0
REST_TIMEOUT_SECONDS = 10.0  # for the rest of a body that was answered already
MAX_CONNECTIONS = 4096
MAX_PIPELINED = 64  # requests that wait for the answer to another on their connection
MAX_KEPT_BYTES = 64 * 1024  # of an answer; more is sent as it comes, so that a client that does not read holds it up


class _JoinedWrites:
    """A transport that sends at once what is written to it in one turn of the event loop: an answer's head and body."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._kept_bytes = 0

    def write(self, data: bytes) -> None:
        """Keep ``data`` until the end of the turn."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what is kept."""
        parts, self._parts, self._kept_bytes = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Send what is kept, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A request's line and headers must be small and come soon; httptools would take any."""

    _in_head = True
    _in_body = False
    _began = False
    _pending_bytes = 0
    _header_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless there are too many connections already."""
        self._writes = _JoinedWrites(transport, self.loop)
        super().connection_made(self._writes)  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "overloaded", f"{MAX_CONNECTIONS} connections are open, which is all; try again later")
        else:
            self._start_timer(HEAD_TIMEOUT_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and what waits on it."""
        self._stop_timer()
        self.pipeline.clear()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Send what is answered already to a client that sends no more; the connection is then closed."""
        self._writes.flush()

    def data_received(self, data: bytes) -> None:
        """Parse what came; give up on a head that goes on for too long."""
        self._began = False
        super().data_received(data)
        if self._in_head and not self._began:
            # Of a header that is not complete the parser tells nothing, so what came is counted as it is.
            self._pending_bytes += len(data)
            if self._pending_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse_head()

    def on_message_begin(self) -> None:
        """Begin a head: the first, or another on a connection that was kept."""
        super().on_message_begin()
        self._began, self._in_head = True, True
        self._pending_bytes = self._header_bytes = 0
        if self._timer is None:
            self._start_timer(HEAD_TIMEOUT_SECONDS)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header in."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._header_bytes + len(self.url) > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError  # the parser stops

    def on_headers_complete(self) -> None:
        """Hand the request over, unless too many wait for their turn: the server reads on whenever one is answered."""
        self._stop_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            log.warning("connection of %s closed: %d requests wait on it", self.client, MAX_PIPELINED)
            self.transport.close()
            raise ValueError  # the parser stops
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a body; if it was answered before, wait for the next request from now on."""
        self._in_body = False
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._stop_timer()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Go on to the next request; the rest of a body that nobody waits for must come soon.

        A client that is alone need not wait until its answer is logged. Those of many are better woken together.
        """
        if len(self.tasks) == 1:
            self._writes.flush()
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete and self._timer is None:
            self._start_timer(REST_TIMEOUT_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request."""
        del msg
        self._refuse(400, "malformed-request", "this is no valid HTTP/1.1 request; check the client")

    def _refuse_head(self) -> None:
        allowed = f"at most {MAX_HEAD_BYTES} bytes in {MAX_HEADERS} headers are allowed; send less"
        self._refuse(431, "head-too-large", f"the request's line and headers are too large; {allowed}")

    def _refuse(self, status: int, name: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        log.warning("connection of %s refused: %s", self.client, name)
        self.transport.write(refuse_connection(status, name, detail))
        self.transport.close()

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
