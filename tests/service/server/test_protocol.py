"""``LimitedProtocol`` on real sockets, in this process. The limits are short here."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.app import create_app
from service.server.protocol import LimitedProtocol
from service.settings import Settings

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SOON = 0.2
YES = PlainTextResponse("yes")


class Listener:
    """Accepts connections for ``app`` in this event loop."""

    def __init__(self, app: ASGIApp, **limits: float) -> None:
        config = uvicorn.Config(app, lifespan="off", timeout_keep_alive=1)
        config.load()
        protocol = type("ShortProtocol", (LimitedProtocol,), limits)
        self.state = ServerState()
        self.connections: list[weakref.ref[LimitedProtocol]] = []

        def accept() -> LimitedProtocol:
            connection: LimitedProtocol = protocol(config, self.state, {})
            self.connections.append(weakref.ref(connection))
            return connection

        self.accept = accept
        self.address: tuple[str, int] = ("", 0)

    async def exchange(self, *parts: bytes) -> bytes:
        """Send ``parts`` one by one; read until the server closes the connection."""
        reader, writer = await asyncio.open_connection(*self.address)
        received = b""
        async with asyncio.timeout(30):
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0.01)
            with suppress(ConnectionError):
                while piece := await reader.read(65536):
                    received += piece
        writer.close()
        return received


@asynccontextmanager
async def listening(app: ASGIApp = YES, **limits: float) -> AsyncIterator[Listener]:
    """Listen on a port; ``limits`` are attributes of ``LimitedProtocol``."""
    listener = Listener(app, **limits)
    server = await asyncio.get_running_loop().create_server(listener.accept, "127.0.0.1", 0)
    listener.address = server.sockets[0].getsockname()
    yield listener
    server.close()


def run(test: Coroutine[None, None, None]) -> None:
    """Run a test that fails, and does not hang, if it waits for something that never comes."""
    asyncio.run(asyncio.wait_for(test, 60))


@pytest.fixture
def _no_garbage_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize(
    "request_bytes",
    [
        GET + b"\r\n",
        GET + b"Connection: close\r\n\r\n",
        GET + b"Connection: close\r\nContent-Length: 9\r\n\r\n",
        GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["kept", "closed", "closed before its body arrived", "offer to upgrade", "no request"],
)
def test_connection_is_freed_when_it_ends(request_bytes: bytes) -> None:
    """A closed connection is freed without the garbage collector, which runs rarely."""

    async def test() -> None:
        async with listening() as listener:
            reader, writer = await asyncio.open_connection(*listener.address)
            writer.write(request_bytes)
            assert (await reader.read(1000)).startswith(b"HTTP/1.1 ")
            writer.close()
            await writer.wait_closed()
            while any(each() for each in listener.connections):  # noqa: ASYNC110  no event
                await asyncio.sleep(0.01)

    run(test())


def test_connection_beyond_the_limit_is_rejected() -> None:
    """With three connections open, the fourth gets 503. After one has closed, the next may come."""

    async def test() -> None:
        async with listening(max_connections=3) as listener:
            opened = [await asyncio.open_connection(*listener.address) for _ in range(3)]
            answer = await listener.exchange()
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"all 3 connections are in use" in answer
            assert b"\r\nretry-after: 1\r\n" in answer
            for reader, writer in opened:
                writer.write(GET + b"\r\n")
                assert (await reader.read(1000)).startswith(b"HTTP/1.1 200")
            opened[0][1].close()
            while len(listener.state.connections) == 3:  # noqa: ASYNC110  no event
                await asyncio.sleep(0.01)
            answer = await listener.exchange(GET + b"Connection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200")
            for _, writer in opened:
                writer.close()

    run(test())


@pytest.mark.parametrize("begun", [b"", b"GET /he", GET, GET + b"\r\n" + GET])
def test_client_that_never_ends_its_head_is_disconnected(begun: bytes) -> None:
    """A connection is closed in time if its first or a later head stays incomplete."""

    async def test() -> None:
        async with listening(head_timeout_seconds=SOON) as listener:
            started = time.monotonic()
            answer = await listener.exchange(begun)
            assert time.monotonic() - started > SOON / 2
            assert answer.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")

    run(test())


def test_time_limit_of_the_next_head_starts_with_the_answer() -> None:
    """The time limit of the next head starts only when the current request is answered."""

    async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3 * SOON)
        await YES(scope, receive, send)

    async def test() -> None:
        async with listening(answer_late, head_timeout_seconds=SOON) as listener:
            started = time.monotonic()
            assert (await listener.exchange(GET + b"\r\n" + GET)).startswith(b"HTTP/1.1 200")
            assert time.monotonic() - started > 3.5 * SOON

    run(test())


@pytest.mark.parametrize("rest", [b"", b"x", b"x" * 9], ids=["nothing more", "a part", "all"])
def test_client_that_was_answered_early_does_not_stay(rest: bytes) -> None:
    """If an upload is answered before its body has arrived, its connection is closed in time."""

    async def test() -> None:
        async with listening(rest_timeout_seconds=SOON) as listener:
            head = POST + b"Content-Length: 9\r\n\r\n"
            async with asyncio.timeout(5):
                assert (await listener.exchange(head, rest)).startswith(b"HTTP/1.1 200")

    run(test())


def test_client_that_reads_no_answer_is_disconnected(linear_folder: Path) -> None:
    """A client that does not read its answers is disconnected, and its uploads end."""
    pixels = bytes(1024 * 20 * 30)
    head = b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    upload = head + b"X-Shape: 1024,20,30\r\nContent-Length: %d\r\n\r\n" % len(pixels) + pixels
    app = create_app(Settings(models=(linear_folder,), device="cpu"), starts_with_models=True)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with (
            app.router.lifespan_context(app),
            listening(app, read_timeout_seconds=3 * SOON) as listener,
        ):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, listener.address)
                # No system buffers 40 answers.
                sending = asyncio.create_task(loop.sock_sendall(client, upload * 40))
                await asyncio.sleep(SOON)
                assert app.state.metrics.requests_in_flight == 1
                with pytest.raises(ConnectionError):
                    await sending
                while listener.state.tasks or listener.state.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert app.state.metrics.requests_in_flight == 0

    run(test())
