"""A transport that joins an answer's writes into one and closes without losing the answer."""

from __future__ import annotations

import asyncio
from typing import Any

REST_TIMEOUT_SECONDS = 10.0  # for a client to finish what it sends after it was answered
MAX_KEPT_BYTES = 64 * 1024  # more is sent at once, so that a client that does not read is noticed


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop as one write.

    An answer's head and body then leave together. Set ``is_client_sending`` while a request
    arrives: ``close`` then sends only an end of file, and waits for the client to hang up. A socket
    that is closed with unread bytes resets the connection, and the client may lose the answer
    (RFC 9112, section 9.6).
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.is_client_sending = False
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._kept_bytes = 0
        self._is_lingering = False
        self._abort_timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        """Keep ``data`` until the end of the turn."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_KEPT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what was kept."""
        parts, self._parts, self._kept_bytes = self._parts, [], 0
        if parts and not self.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Send what was kept, then close the connection."""
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
            self._abort_timer = self._loop.call_later(REST_TIMEOUT_SECONDS, self._transport.abort)

    def stop_waiting(self) -> None:
        """Cancel the timer of ``close``: the connection is closed."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()

    def is_closing(self) -> bool:
        """Return whether nothing more is sent."""
        return self._is_lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
