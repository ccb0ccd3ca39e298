"""Own what a connection may cost before there is a request: uvicorn's protocol, with limits on a request's head."""

from __future__ import annotations

import asyncio
import logging
from array import array

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.problems import refuse_connection
from service.server.writes import REST_TIMEOUT_SECONDS, JoinedWrites

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
HEAD_TIMEOUT_SECONDS = 10.0
READ_TIMEOUT_SECONDS = 20.0  # for a client to read some of an answer that it leaves unread
MAX_CONNECTIONS = 4096
MAX_PIPELINED = 64  # requests that wait for the answer to another on their connection
MAX_SMALL_CHUNKS = 4096  # of a body, each of which costs as much as a large one
SMALL_CHUNK_BYTES = 16  # or fewer, on average


class _Parser(httptools.HttpRequestParser):
    """A parser that passes over offers to upgrade, as a server may (RFC 9110, section 7.8).

    httptools takes what follows such a head for another protocol, so it is told the head once more without the offer.
    """

    def __init__(self, protocol: LimitedProtocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._protocol = protocol

    def feed_data(self, data: bytes | bytearray | memoryview | array[int]) -> None:
        """Parse what came."""
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                super().feed_data(self._protocol.tell_head_again())
            else:
                return


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A request's line and headers must be small and come soon; httptools would take any."""

    _in_head = False
    _in_body = False
    _is_told_again = False
    _advanced = False
    _pending_bytes = 0
    _header_bytes = 0
    _chunks = 0
    _chunk_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless there are too many connections already."""
        self.parser = _Parser(self)
        self._writes = JoinedWrites(transport, self.loop)
        super().connection_made(self._writes)  # type: ignore[arg-type]
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(
                503,
                "overloaded",
                f"{MAX_CONNECTIONS} connections are open, which is all; try again later",
            )
        else:
            self._start_timer(HEAD_TIMEOUT_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and what waits on it."""
        self._writes.forget()
        self._stop_timer()
        self.resume_writing()
        self.pipeline.clear()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Send what is answered already to a client that sends no more; the connection is then closed."""
        self._writes.flush()

    def data_received(self, data: bytes) -> None:
        """Parse what came; give up on a head, or what else is no part of a body, that goes on for too long."""
        if self._writes.is_lingering:
            return
        self._advanced = False
        super().data_received(data)
        # Of a header that is not complete the parser tells nothing, so what came is counted as it is.
        self._pending_bytes = 0 if self._advanced else self._pending_bytes + len(data)
        if self.transport.is_closing():
            return
        if self._pending_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
        elif self._is_idle and self._timer is None and self.timeout_keep_alive_task is None:
            self._start_timer(HEAD_TIMEOUT_SECONDS)

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answers, but not for ever."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(READ_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, for the client has read."""
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def tell_head_again(self) -> bytes:
        """Return a head that tells of the latest request's body alone, and pass over it when it is parsed."""
        self._is_told_again = True
        framing = [
            header
            for header in self.headers
            if header[0] in (b"content-length", b"transfer-encoding")
        ]
        lines = [name + b": " + value for name, value in framing or [(b"content-length", b"0")]]
        return b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""])

    @property
    def _is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._in_body and (self.cycle is None or self.cycle.response_complete)

    def on_message_begin(self) -> None:
        """Begin a head: the first, or another on a connection that was kept."""
        if self._is_told_again:
            return
        super().on_message_begin()
        self._advanced, self._in_head, self._writes.is_coming = True, True, True
        self._header_bytes = self._chunks = self._chunk_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL in."""
        if not self._is_told_again:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header in; of a trailer, which may come after a body, its size alone."""
        if self._is_told_again:
            return
        if self._in_head:
            super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._header_bytes + len(self.url) > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError  # the parser stops

    def on_headers_complete(self) -> None:
        """Hand the request over, unless too many wait for their turn: the server reads on whenever one is answered."""
        if self._is_told_again:
            self._is_told_again = False
            return
        self._stop_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            log.warning(
                "connection of %s closed: %d requests wait on it", self.client, MAX_PIPELINED
            )
            self.transport.close()
            raise ValueError  # the parser stops
        self._advanced, self._in_head, self._in_body = True, False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body in, unless there are too many small ones."""
        self._advanced = True
        self._chunks += 1
        self._chunk_bytes += len(body)
        if (
            self._chunks > MAX_SMALL_CHUNKS
            and self._chunk_bytes <= SMALL_CHUNK_BYTES * self._chunks
        ):
            self._refuse(
                400,
                "malformed-request",
                f"the body is in chunks of {SMALL_CHUNK_BYTES} bytes or fewer",
            )
            raise ValueError  # the parser stops
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a body; if it was answered before, wait for the next request from now on."""
        if self.parser.should_upgrade():
            return  # its head is told again, and then its body
        self._advanced, self._in_body, self._writes.is_coming = True, False, False
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
        self._refuse(
            400, "malformed-request", "this is no valid HTTP/1.1 request; check the client"
        )

    def _refuse_head(self) -> None:
        allowed = f"at most {MAX_HEAD_BYTES} bytes in {MAX_HEADERS} headers are allowed; send less"
        self._refuse(
            431, "head-too-large", f"the request's line and headers are too large; {allowed}"
        )

    def _refuse(self, status: int, name: str, detail: str) -> None:
        if self.transport.is_closing():
            return
        log.warning("connection of %s refused: %s", self.client, name)
        self.transport.write(refuse_connection(status, name, detail))
        self.transport.close()

    def _start_timer(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
