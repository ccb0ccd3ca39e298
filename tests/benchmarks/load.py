"""Closed-loop load on a real server over plain sockets; it records each request's outcome by id."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from tests import golden
from tests.service.images import encode

HOST = "127.0.0.1"
LOSSLESS: dict[str, dict[str, bool]] = {
    "PNG": {},
    "BMP": {},
    "GIF": {},
    "WEBP": {"lossless": True},
}
BROKEN = (ConnectionError, asyncio.IncompleteReadError)
MAX_PAUSE_SECONDS = 0.3  # a slow client pauses in the middle of its body


@dataclass(frozen=True)
class Upload:
    """An image file and its probabilities, float32 ``[classes]``."""

    content: bytes
    answer: NDArray[np.float32]

    def is_answered_by(self, body: bytes) -> bool:
        """Return whether a response is the answer to this image."""
        probabilities = list(json.loads(body)["probabilities"].values())
        return np.allclose(probabilities, self.answer, atol=golden.TOLERANCE)


def golden_uploads() -> list[Upload]:
    """Encode the golden set; the lossless formats take turns."""
    formats = list(LOSSLESS.items())
    pairs = zip(golden.images(), golden.probabilities(), strict=True)
    return [
        Upload(
            encode(image, formats[number % len(formats)][0], **formats[number % len(formats)][1]),
            answer,
        )
        for number, (image, answer) in enumerate(pairs)
    ]


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    status: int
    closes: bool
    body: bytes


class Connection:
    """A connection to the server, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def local_port(self) -> int:
        """The client's port, which the server sees as the connection's remote port."""
        port: int = self.writer.get_extra_info("sockname")[1]
        return port

    async def send(self, data: bytes) -> None:
        """Send ``data``."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> Reply:
        """Wait for an answer and return it."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        body = await self.reader.readexactly(int(length[1])) if length else await self.reader.read()
        return Reply(int(head.split(" ", 2)[1]), "connection: close" in head, body)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Connect, and abort the connection at the end of the block."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def head(length: int, content_type: str = "image/png", **headers: str) -> bytes:
    """Render the head of an upload of ``length`` bytes."""
    lines = [
        "POST /predict HTTP/1.1",
        f"Host: {HOST}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class Tally:
    """The valid requests by their outcome."""

    seconds: list[float] = field(default_factory=list)
    """The time of each right answer: the answer to the request's own image."""
    versions: set[str] = field(default_factory=set)
    wrong: dict[str, Reply] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    """The ids of requests answered 503."""
    unanswered: dict[str, int] = field(default_factory=dict)
    """The client's port by request id: the connection broke before the answer."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """The client's port by request id: the request waits for its answer."""

    @property
    def ended(self) -> int:
        """The number of requests that have ended."""
        return len(self.seconds) + len(self.wrong) + len(self.rejected) + len(self.unanswered)

    async def wait_for_answers(self, count: int) -> None:
        """Wait for ``count`` more right answers."""
        enough = len(self.seconds) + count
        await until(lambda: len(self.seconds) >= enough)

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the right answers' times."""
        return float(np.percentile(self.seconds, percent)) * 1000


class Load:
    """Users who each upload an image, wait for its answer and upload the next."""

    def __init__(self, port: int, uploads: list[Upload], users: int) -> None:
        self.tally = Tally()
        self._port = port
        self._uploads = uploads
        self._users = users
        self._stopped = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Tally]:
        """Start all users; at the end of the block, wait for their last answers."""
        users = [asyncio.create_task(self._use(number)) for number in range(self._users)]
        try:
            yield self.tally
        finally:
            self._stopped = True
            await asyncio.gather(*users)

    async def _use(self, user: int) -> None:
        numbers = count()
        while not self._stopped:
            try:
                async with connected(self._port) as connection:
                    again = True
                    while again and not self._stopped:
                        again = await self._ask(connection, f"torture-{user}-{next(numbers)}")
            except ConnectionRefusedError:
                return  # the server has stopped
            except ConnectionError:
                continue  # the connection broke before a request was sent

    async def _ask(self, connection: Connection, request_id: str) -> bool:
        """Upload an image; return whether to use the connection again."""
        upload = random.choice(self._uploads)
        started = time.perf_counter()
        self.tally.in_flight[request_id] = connection.local_port
        try:
            await self._send(connection, upload.content, request_id)
            reply = await connection.receive()
        except BROKEN:
            self.tally.unanswered[request_id] = connection.local_port
            return False
        finally:
            del self.tally.in_flight[request_id]
        if reply.status == 200 and upload.is_answered_by(reply.body):
            self.tally.seconds.append(time.perf_counter() - started)
            self.tally.versions.add(json.loads(reply.body)["model"]["version"])
        elif reply.status == 503:
            self.tally.rejected.append(request_id)
        else:
            self.tally.wrong[request_id] = reply
        return not reply.closes and random.random() < 0.9  # one in ten opens a new one

    async def _send(self, connection: Connection, content: bytes, request_id: str) -> None:
        message = head(len(content), X_Request_ID=request_id) + content
        if random.random() < 0.1:  # one upload in ten is slow
            await connection.send(message[: -len(content) // 2])
            await asyncio.sleep(random.uniform(0, MAX_PAUSE_SECONDS))
            await connection.send(message[-len(content) // 2 :])
        else:
            await connection.send(message)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.02)
