"""``LimitedProtocol`` on one connection, without a server process."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from service.server.protocol import LimitedProtocol

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


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
    connections: list[weakref.ref[LimitedProtocol]] = []
    config = uvicorn.Config(PlainTextResponse("yes"), lifespan="off")
    config.load()

    def accept() -> LimitedProtocol:
        connection = LimitedProtocol(config, ServerState(), {})
        connections.append(weakref.ref(connection))
        return connection

    async def test() -> None:
        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request_bytes)
        assert (await reader.read(1000)).startswith(b"HTTP/1.1 ")
        writer.close()
        await writer.wait_closed()
        server.close()
        async with asyncio.timeout(5):
            while any(each() for each in connections):  # noqa: ASYNC110  freeing sets no event
                await asyncio.sleep(0.01)

    gc.disable()
    try:
        asyncio.run(test())
    finally:
        gc.enable()
