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
MAX_CONNECTIONS = 4096


class _JoinedWrites:
    """A transport that sends at once what is written to it in one turn of the event loop: an answer's head and body."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Keep ``data`` until the end of the turn."""
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A request's line and headers must be small and come soon; httptools would take any."""

    _in_head = True
    _began = False
    _pending_bytes = 0
    _header_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless there are too many connections already."""
        super().connection_made(_JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "overloaded", f"{MAX_CONNECTIONS} connections are open, which is all; try again later")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

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
        if self._head_timer is None:
            self._start_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header in."""
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._header_bytes + len(self.url) > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError  # the parser stops

    def on_headers_complete(self) -> None:
        """Hand the request over."""
        self._stop_timer()
        self._in_head = False
        super().on_headers_complete()

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

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
