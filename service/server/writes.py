"""A transport that joins an answer's writes into one, and that loses no answer when it closes."""

from __future__ import annotations

import asyncio
from typing import Any

ANSWER_START = b"HTTP/1.1 "  # every answer begins with it
MAX_KEPT_BYTES = 64 * 1024  # more is sent at once, so that a client that does not read is noticed


class JoinedWrites:
    """A transport that joins all writes of one turn of the event loop into one write.

    An answer's head and body are then sent together.

    Set ``is_client_sending`` while a request arrives: ``close`` then only sends an end of file, and
    waits at most ``rest_timeout_seconds`` for the client to hang up. If a socket were closed with
    unread bytes, the connection would be reset, and the client might lose the answer (RFC 9112,
    section 9.6).
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        rest_timeout_seconds: float,
    ) -> None:
        self.is_client_sending = False
        self._transport = transport
        self._loop = loop
        self._rest_timeout_seconds = rest_timeout_seconds
        self._parts: list[bytes] = []
        self._kept_bytes = 0
        self._early_bytes = 0
        self._is_lingering = False
        self._abort_timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        """Keep ``data`` until the end of the turn, or until more than MAX_KEPT_BYTES are kept."""
        if self._early_bytes:
            data, self._early_bytes = data[self._early_bytes :], 0
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self.flush()

    def begin_answer(self) -> None:
        """Send the start of the next answer now; the next write must begin with ANSWER_START.

        The system of a client that has gone replies with a reset, which nothing else would reveal.
        """
        self._early_bytes = len(ANSWER_START)
        self._transport.write(ANSWER_START)

    def flush(self) -> None:
        """Send the kept data now."""
        parts, self._parts, self._kept_bytes = self._parts, [], 0
        if parts and not self.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Send the kept data, then close the connection."""
        if self.is_closing():
            return
        self.flush()
        if self.is_client_sending:
            self._is_lingering = True
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()
        if self._is_lingering or self._transport.get_write_buffer_size():
            self._abort_timer = self._loop.call_later(
                self._rest_timeout_seconds, self._transport.abort
            )

    def stop_waiting(self) -> None:
        """Cancel the timer of ``close``, because the connection is closed."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()

    def is_closing(self) -> bool:
        """Return whether the connection is closing; later writes are then dropped."""
        return self._is_lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
