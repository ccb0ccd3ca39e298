"""Closed-loop load on a real server over plain sockets: every request is accounted for, by its id, to the last."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

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
MAX_PAUSE_SECONDS = 0.3  # of a slow but honest client, in the middle of its body


@dataclass(frozen=True)
class Upload:
    """An image in a file, and the probabilities, float32 ``[classes]``, that belong to it."""

    content: bytes
    answer: NDArray[np.float32]

    def is_answered_by(self, body: bytes) -> bool:
        """Say whether a response is the answer to this image and not to another."""
        probabilities = list(json.loads(body)["probabilities"].values())
        return np.allclose(probabilities, self.answer, atol=golden.TOLERANCE)


def golden_uploads() -> list[Upload]:
    """Encode the golden set, in turns in each of the lossless formats."""
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
    """What a server answered."""

    status: int
    closes: bool
    body: bytes


class Connection:
    """A connection to the server, for one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def local_port(self) -> int:
        """By which the server's side of this connection can be told."""
        port: int = self.writer.get_extra_info("sockname")[1]
        return port

    async def send(self, data: bytes) -> None:
        """Send ``data``."""
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> Reply:
        """Wait for a whole answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        body = await self.reader.readexactly(int(length[1])) if length else await self.reader.read()
        return Reply(int(head.split(" ", 2)[1]), "connection: close" in head, body)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Connect, and hang up in the end, whatever is still under way."""
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
    """What became of good requests: each is in one of these, by its id or its seconds."""

    seconds: list[float] = field(default_factory=list)
    """Of those that were answered with what belongs to their image."""
    versions: set[str] = field(default_factory=set)
    wrong: dict[str, Reply] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    """Answered 503."""
    unanswered: dict[str, int] = field(default_factory=dict)
    """Local port by id."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """Local port by id of the requests that wait for their answer now."""

    @property
    def asked(self) -> int:
        """How many requests have come to an end."""
        return len(self.seconds) + len(self.wrong) + len(self.refused) + len(self.unanswered)

    async def answers(self, count: int) -> None:
        """Wait for ``count`` more right answers."""
        enough = len(self.seconds) + count
        await until(lambda: len(self.seconds) >= enough)

    def percentile_ms(self, percent: float) -> float:
        """Return the time that ``percent`` of the right answers did not exceed."""
        return float(np.percentile(self.seconds, percent)) * 1000


class Load:
    """``users`` that each upload an image of the golden set, wait for its answer, and upload the next."""

    def __init__(self, port: int, uploads: list[Upload], users: int) -> None:
        self.tally = Tally()
        self._port = port
        self._uploads = uploads
        self._users = users
        self._stopped = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Tally]:
        """Let all users ask; in the end, wait for the answers to what they have asked."""
        users = [asyncio.create_task(self._use(number)) for number in range(self._users)]
        try:
            yield self.tally
        finally:
            self._stopped = True
            await asyncio.gather(*users)

    async def _use(self, user: int) -> None:
        numbers = iter(range(10**9))
        while not self._stopped:
            try:
                async with connected(self._port) as connection:
                    while not self._stopped and await self._ask(
                        connection, f"torture-{user}-{next(numbers)}"
                    ):
                        pass
            except ConnectionRefusedError:
                return  # the server has gone
            except ConnectionError:
                continue  # it went before anything was asked

    async def _ask(self, connection: Connection, request_id: str) -> bool:
        """Upload an image; return whether the connection may be used again."""
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
            self.tally.refused.append(request_id)
        else:
            self.tally.wrong[request_id] = reply
        return not reply.closes and random.random() < 0.9  # every tenth connects anew

    async def _send(self, connection: Connection, content: bytes, request_id: str) -> None:
        message = head(len(content), X_Request_ID=request_id) + content
        if random.random() < 0.1:  # every tenth is slow
            await connection.send(message[: -len(content) // 2])
            await asyncio.sleep(random.uniform(0, MAX_PAUSE_SECONDS))
            await connection.send(message[-len(content) // 2 :])
        else:
            await connection.send(message)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  what is waited for is in another process
            await asyncio.sleep(0.02)
