"""A cheap load generator, closed loop or open loop at a steady rate.

In the open loop a request's time starts when the request is due, not when a connection is free to
send it. So a pause of the server counts for all requests that were due in it (no coordinated
omission).
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
    """The answers: seconds of each right one, counts by status, and the number of wrong ones."""

    seconds: list[float] = field(default_factory=list)
    rejection_seconds: list[float] = field(default_factory=list)
    """Of the answers 503."""
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
    """A connection to the server. It calls ``on_answer`` with itself, a status and a body."""

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
        self.measures = False

    async def connect(self, port: int, count: int) -> list[_Connection]:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: _Connection(self.on_answer), HOST, port)
            for _ in range(count)
        ]
        return [connection for _, connection in made]

    def on_answer(self, connection: _Connection, status: int, body: bytes) -> None:
        now = time.perf_counter()
        if self.measures:
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
        self.measures = True
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        self.measures = False
        self.result.duration_seconds = time.perf_counter() - started


class _OpenLoad(_Load):
    def __init__(self, requests: Iterator[Request]) -> None:
        super().__init__(requests)
        self.free: deque[_Connection] = deque()
        self.waiting: deque[float] = deque()

    def go_on(self, connection: _Connection) -> None:
        if self.waiting:
            connection.ask(next(self.requests), self.waiting.popleft())
        else:
            self.free.append(connection)

    async def keep_due(self, rate: float) -> None:
        """Make ``rate`` requests due every second, without an end."""
        due = time.perf_counter()
        while True:
            now = time.perf_counter()
            while due <= now:
                if self.free:
                    self.free.popleft().ask(next(self.requests), due)
                else:
                    self.waiting.append(due)
                due += 1 / rate
            await asyncio.sleep(max(0.001, due - now))


async def closed_loop(
    port: int, requests: list[Request], connections: int, seconds: float
) -> Result:
    """Let each connection send a request when its last one is answered.

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
    """Send requests at ``rate`` a second, however many are answered, over ``connections``.

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
