"""The writes of one turn of the event loop, joined into one."""

from __future__ import annotations

import asyncio
from typing import Any

REST_TIMEOUT_SECONDS = 10.0  # for the rest of a body that was answered already
MAX_KEPT_BYTES = (
    64 * 1024
)  # of an answer; more is sent as it comes, so that a client that does not read holds it up


class JoinedWrites:
    """A transport that sends at once what is written to it in one turn of the event loop: an answer's head and body.

    When it is closed while a request ``is_coming``, it waits for the client to hang up: a socket that is closed with
    bytes unread takes back what was sent.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._kept_bytes = 0
        self._end: asyncio.TimerHandle | None = None
        self.is_coming = self.is_lingering = False

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
        if parts and not self.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Send what is kept, and close."""
        if self.is_closing():
            return
        self.flush()
        if self.is_coming:
            self.is_lingering = True
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()
        if self.is_lingering or self._transport.get_write_buffer_size():
            self._end = self._loop.call_later(REST_TIMEOUT_SECONDS, self._transport.abort)

    def forget(self) -> None:
        """Wait no more, for the connection is closed."""
        if self._end is not None:
            self._end.cancel()

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self.is_lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
