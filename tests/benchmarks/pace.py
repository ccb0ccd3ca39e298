"""A load generator that needs little CPU: a closed loop, or an open loop at a steady rate.

In the open loop a request's time starts when the request is due, even if no connection is free to
send it. So a pause of the server slows all requests that are due during the pause. Without this,
the times would look too good (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from urllib.parse import urlsplit

import numpy as np

from tests.e2e.server import Server

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """The bytes of a request, and bytes that its answer must contain."""

    message: bytes
    expected: bytes


@dataclass
class Result:
    """The answers of a load: times, counts by status, and the count of wrong answers."""

    seconds: list[float] = field(default_factory=list)
    """The time of each right answer."""
    rejection_seconds: list[float] = field(default_factory=list)
    """The time of each 503."""
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    duration_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return len(self.seconds) / self.duration_seconds

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the right answers' times."""
        return _percentile_ms(self.seconds, percent)

    def rejection_percentile_ms(self, percent: float) -> float:
        """Return a percentile of the rejections' times."""
        return _percentile_ms(self.rejection_seconds, percent)


def _percentile_ms(seconds: list[float], percent: float) -> float:
    return float(np.percentile(seconds, percent)) * 1000 if seconds else float("nan")


class _Connection(asyncio.Protocol):
    """A connection to the server. Each answer's status and body go to ``on_answer``."""

    transport: asyncio.Transport

    def __init__(self, on_answer: Callable[[_Connection, int, bytes], None]) -> None:
        self._on_answer = on_answer
        self._received = b""
        self.request: Request
        self.due = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        _, _, length = self._received[:end].partition(b"content-length: ")
        if len(self._received) < end + int(length.partition(b"\r")[0]):
            return
        received, self._received = self._received, b""
        self._on_answer(self, int(received[9:12]), received[end:])

    def ask(self, request: Request, due: float) -> None:
        self.request, self.due = request, due
        self.transport.write(request.message)


class _Load:
    def __init__(self, requests: Iterator[Request]) -> None:
        self.result = Result()
        self.requests = requests
        self.is_measuring = False

    async def connect(self, port: int, count: int) -> list[_Connection]:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: _Connection(self.on_answer), HOST, port)
            for _ in range(count)
        ]
        return [connection for _, connection in made]

    def on_answer(self, connection: _Connection, status: int, body: bytes) -> None:
        now = time.perf_counter()
        if self.is_measuring:
            self.result.statuses[status] += 1
            if status == 503:
                self.result.rejection_seconds.append(now - connection.due)
            elif status == 200 and connection.request.expected in body:
                self.result.seconds.append(now - connection.due)
            else:
                self.result.wrong += 1
        self.go_on(connection)

    def go_on(self, connection: _Connection) -> None:
        connection.ask(next(self.requests), time.perf_counter())

    async def measure(self, seconds: float) -> None:
        self.is_measuring = True
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        self.is_measuring = False
        self.result.duration_seconds = time.perf_counter() - started


class _OpenLoad(_Load):
    def __init__(self, requests: Iterator[Request]) -> None:
        super().__init__(requests)
        self.free: deque[_Connection] = deque()
        self.overdue: deque[float] = deque()  # due times of requests that wait for a connection

    def go_on(self, connection: _Connection) -> None:
        if self.overdue:
            connection.ask(next(self.requests), self.overdue.popleft())
        else:
            self.free.append(connection)

    async def keep_due(self, rate: float) -> None:
        """Send ``rate`` requests a second, or let them wait for a connection, until cancelled."""
        due = time.perf_counter()
        while True:
            now = time.perf_counter()
            while due <= now:
                if self.free:
                    self.free.popleft().ask(next(self.requests), due)
                else:
                    self.overdue.append(due)
                due += 1 / rate
            await asyncio.sleep(max(0.001, due - now))


async def closed_loop(
    port: int, requests: list[Request], connections: int, seconds: float
) -> Result:
    """Let each connection send its next request as soon as the last one is answered.

    A warm-up of ``seconds / 4`` comes first and does not count.
    """
    load = _Load(cycle(requests))
    opened = await load.connect(port, connections)
    for connection in opened:
        connection.ask(next(load.requests), time.perf_counter())
    await asyncio.sleep(seconds / 4)
    await load.measure(seconds)
    _close(opened)
    return load.result


async def open_loop(
    port: int, requests: list[Request], rate: float, connections: int, seconds: float
) -> Result:
    """Send ``rate`` requests a second over ``connections``, however fast the answers come.

    A warm-up of ``seconds / 4`` comes first and does not count.
    """
    load = _OpenLoad(cycle(requests))
    opened = await load.connect(port, connections)
    load.free.extend(opened)
    pacing = asyncio.create_task(load.keep_due(rate))
    await asyncio.sleep(seconds / 4)
    await load.measure(seconds)
    pacing.cancel()
    _close(opened)
    return load.result


def _close(connections: list[_Connection]) -> None:
    for connection in connections:
        connection.transport.abort()


def port_of(server: Server) -> int:
    """Return a server's port."""
    return urlsplit(server.url).port or 0
