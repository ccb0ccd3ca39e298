"""Uvicorn's HTTP protocol with limits on each connection: sizes, counts and times."""

from __future__ import annotations

import asyncio
import logging
import socket
from array import array
from enum import Enum, auto

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.problems import refuse_connection
from service.server.writes import JoinedWrites

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
RESET_CHECK_SECONDS = 0.1  # between two looks whether a client that sends no more has gone
MAX_PIPELINED = 64  # requests of one connection that wait until an earlier request is answered
MAX_SMALL_CHUNKS = 4096  # in one body; a small chunk takes as much time as a large one
SMALL_CHUNK_BYTES = 16  # chunks are small if their average size in the body is at most this


class Phase(Enum):
    """What the client is sending now."""

    IDLE = auto()  # nothing
    HEAD = auto()  # a request's line and headers
    REPLAY = auto()  # nothing: the parser reads a head made by replay_head, see _Parser
    BODY = auto()  # a body, and the trailers after it


class _Parser(httptools.HttpRequestParser):
    """A parser that ignores offers to upgrade. A server may ignore them (RFC 9110, section 7.8).

    For example, Java's HTTP client offers to upgrade to HTTP/2 (h2c) with an upload. After a head
    with an offer, httptools reports the request as complete and raises HttpParserUpgrade. Uvicorn
    then loses the body:
    https://github.com/Kludex/uvicorn/issues/2722 and
    https://github.com/MagicStack/httptools/issues/124, both open in September 2026.
    So ``feed_data`` gives the parser a second head, which only says how long the body is, and then
    the body.

    Delete this class, ``replay_head`` and ``Phase.REPLAY`` when httptools can ignore upgrades, or
    when uvicorn delivers the body after HttpParserUpgrade.
    """

    def __init__(self, protocol: LimitedProtocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._protocol = protocol

    def feed_data(self, data: bytes | bytearray | memoryview | array[int]) -> None:
        """Parse ``data``; after an offer to upgrade, continue with the body."""
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                super().feed_data(self._protocol.replay_head())
            else:
                return


class LimitedProtocol(HttpToolsProtocol):
    """One connection with limits, because httptools has none.

    A head is a request's line and headers. It must be small and arrive soon.
    """

    max_connections = 4096
    head_timeout_seconds = 10.0
    rest_timeout_seconds = 10.0  # for an answered client to finish sending and to read the answer
    read_timeout_seconds = 20.0  # for a client to read from an answer that waits to be sent

    _phase = Phase.IDLE
    _pending_bytes = 0  # received since the phase began or the last part of a body came
    _header_bytes = 0
    _chunks = 0
    _chunk_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _reset_timer: asyncio.TimerHandle | None = None
    _has_client_ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, or reject the connection if too many are open."""
        self.parser = _Parser(self)
        self._writes = JoinedWrites(transport, self.loop, self.rest_timeout_seconds)
        super().connection_made(self._writes)  # type: ignore[arg-type]
        if len(self.connections) > self.max_connections:
            detail = f"all {self.max_connections} connections are in use; try again later"
            self._reject(503, "overloaded", detail)
        else:
            self._start_timer(self.head_timeout_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers and drop the waiting requests."""
        self._writes.stop_waiting()
        self._stop_timer()
        if self._reset_timer is not None:
            self._reset_timer.cancel()
        self.resume_writing()
        self.pipeline.clear()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer the requests that have arrived in full; return whether there are any.

        The client sends no more: it has closed its half of the connection, or it has gone. If it
        has gone, its requests are not worth an answer.
        """
        self._writes.flush()
        if self._phase is not Phase.IDLE or self._awaits_head:
            return False  # asyncio closes the connection
        self._has_client_ended = True
        if not self.pipeline and not self.cycle.response_started:
            self._writes.begin_answer()
        self._abort_if_reset()
        return True

    def _abort_if_reset(self) -> None:
        connection: socket.socket = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._reset_timer = self.loop.call_later(RESET_CHECK_SECONDS, self._abort_if_reset)

    def data_received(self, data: bytes) -> None:
        """Parse ``data``; reject a head or a trailer that grows too large."""
        if self._writes.is_closing():
            return
        # The parser reports a header only when it is complete, so received bytes are counted here.
        # on_body and _enter set the count back to 0.
        self._pending_bytes += len(data)
        super().data_received(data)
        if self._writes.is_closing():
            return
        if self._pending_bytes > MAX_HEAD_BYTES:
            self._reject_head()
        elif self._awaits_head and self._timer is None and self.timeout_keep_alive_task is None:
            self._start_timer(self.head_timeout_seconds)

    def pause_writing(self) -> None:
        """Wait at most ``read_timeout_seconds`` for a client that does not read its answers."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(self.read_timeout_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Continue to send: the client has read, or the connection is lost."""
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def replay_head(self) -> bytes:
        """Return a head that only says how long the current request's body is; see ``_Parser``.

        The callbacks ignore this head when it is parsed.
        """
        self._phase = Phase.REPLAY
        framing = [
            name + b": " + value
            for name, value in self.headers
            if name in (b"content-length", b"transfer-encoding")
        ]
        lines = framing or [b"content-length: 0"]
        return b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""])

    def on_message_begin(self) -> None:
        """Begin a request; count its headers and chunks from 0."""
        if self._phase is Phase.REPLAY:
            return
        super().on_message_begin()
        self._enter(Phase.HEAD)
        self._header_bytes = self._chunks = self._chunk_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL."""
        if self._phase is not Phase.REPLAY:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer, which comes after a body, only counts towards the size limit."""
        if self._phase is Phase.REPLAY:
            return
        if self._phase is Phase.HEAD:
            super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._header_bytes + len(self.url) > MAX_HEAD_BYTES:
            self._reject_head()
            raise ValueError  # the parser stops

    def on_headers_complete(self) -> None:
        """Start to answer the request, unless too many requests of this connection wait.

        Uvicorn pauses reading while requests wait, but resumes reading after each answer. Without a
        limit, more and more requests would wait.
        """
        if self._phase is Phase.REPLAY:
            self._enter(Phase.BODY)
            return
        self._stop_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            log.warning("connection from %s closed: %d requests wait", self.client, MAX_PIPELINED)
            self.transport.close()
            raise ValueError  # the parser stops
        self._enter(Phase.BODY)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Add a part of the body; reject a body with too many small parts."""
        self._pending_bytes = 0
        self._chunks += 1
        self._chunk_bytes += len(body)
        is_small = self._chunk_bytes <= SMALL_CHUNK_BYTES * self._chunks
        if self._chunks > MAX_SMALL_CHUNKS and is_small:
            detail = (
                f"the body has more than {MAX_SMALL_CHUNKS} chunks of {SMALL_CHUNK_BYTES} bytes "
                "or fewer on average; send larger chunks"
            )
            self._reject(400, "malformed-request", detail)
            raise ValueError  # the parser stops
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request. If it was answered before its end, start the keep-alive timer here."""
        if self.parser.should_upgrade():
            return  # the body follows after the replay
        self._enter(Phase.IDLE)
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._stop_timer()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """Continue with the next request.

        If the answer was sent before the body's end, the rest of the body must arrive within
        ``rest_timeout_seconds``.
        """
        # If this is the process's only request, send its answer before the log line is written.
        # With several requests, it is faster to send their answers together.
        if len(self.tasks) == 1:
            self._writes.flush()
        super().on_response_complete()
        if self._has_client_ended and self._awaits_head:
            self.transport.close()
        is_answered = self.cycle.response_complete
        if self._phase is Phase.BODY and is_answered and self._timer is None:
            self._start_timer(self.rest_timeout_seconds)

    def send_400_response(self, msg: str) -> None:
        """Reject bytes that are not an HTTP request."""
        del msg
        detail = "this is not a valid HTTP/1.1 request; check the client"
        self._reject(400, "malformed-request", detail)

    @property
    def _awaits_head(self) -> bool:
        """Whether all requests are answered and the client must send the next head."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered and self._phase is not Phase.BODY

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._pending_bytes = 0
        self._writes.is_client_sending = phase is not Phase.IDLE

    def _reject_head(self) -> None:
        allowed = f"at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers are allowed"
        detail = f"the request line and headers are too large; {allowed}; send less"
        self._reject(431, "head-too-large", detail)

    def _reject(self, status: int, name: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        log.warning("connection from %s rejected: %s", self.client, name)
        self.transport.write(refuse_connection(status, name, detail))
        self.transport.close()

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
