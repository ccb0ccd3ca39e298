"""The transport that joins the writes of one turn of the event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest

from service.server.writes import JoinedWrites


class Recorder(asyncio.Transport):
    """A transport that records the calls and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes | str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Record the data."""
        self.calls.append(bytes(data))

    def write_eof(self) -> None:
        """Record the call."""
        self.calls.append("write_eof")

    def resume_reading(self) -> None:
        """Record the call."""
        self.calls.append("resume_reading")

    def close(self) -> None:
        """Record the call."""
        self.calls.append("close")

    def is_closing(self) -> bool:
        """Return whether ``close`` was called."""
        return "close" in self.calls

    def get_write_buffer_size(self) -> int:
        """Return 0, as if everything were sent."""
        return 0


def run_with_recorder(
    test: Callable[[JoinedWrites, Recorder], Coroutine[None, None, None]],
) -> None:
    """Run ``test`` with a JoinedWrites that writes to a Recorder."""

    async def main() -> None:
        recorder = Recorder()
        writes = JoinedWrites(recorder, asyncio.get_running_loop(), rest_timeout_seconds=10)
        await test(writes, recorder)
        writes.stop_waiting()

    asyncio.run(main())


def test_writes_of_one_turn_are_one_write() -> None:
    """All writes of one turn are sent together, in order; the next turn's writes are separate."""

    async def test(writes: JoinedWrites, recorder: Recorder) -> None:
        writes.write(b"head ")
        writes.write(b"body")
        assert recorder.calls == []
        await asyncio.sleep(0)
        assert recorder.calls == [b"head body"]
        writes.write(b"next")
        await asyncio.sleep(0)
        assert recorder.calls == [b"head body", b"next"]

    run_with_recorder(test)


def test_large_answer_is_sent_at_once() -> None:
    """More than 64 KiB are sent before the turn ends, so the transport can notice a slow client."""

    async def test(writes: JoinedWrites, recorder: Recorder) -> None:
        writes.write(bytes(65_536))
        assert recorder.calls == []
        writes.write(b"x")
        assert recorder.calls == [bytes(65_536) + b"x"]
        await asyncio.sleep(0)
        assert len(recorder.calls) == 1

    run_with_recorder(test)


def test_flush_does_not_wait_for_the_end_of_the_turn() -> None:
    """A flush sends the kept data at once; a second flush sends nothing."""

    async def test(writes: JoinedWrites, recorder: Recorder) -> None:
        writes.write(b"answer")
        writes.flush()
        writes.flush()
        assert recorder.calls == [b"answer"]

    run_with_recorder(test)


@pytest.mark.parametrize(
    ("is_client_sending", "end"), [(False, ["close"]), (True, ["write_eof", "resume_reading"])]
)
def test_close_sends_what_was_kept(is_client_sending: bool, end: list[str]) -> None:
    """``close`` sends the kept answer first; later writes and a second close do nothing."""

    async def test(writes: JoinedWrites, recorder: Recorder) -> None:
        writes.is_client_sending = is_client_sending
        writes.write(b"answer")
        assert not writes.is_closing()
        writes.close()
        assert writes.is_closing()
        writes.write(b"too late")
        writes.close()
        await asyncio.sleep(0)
        assert recorder.calls == [b"answer", *end]

    run_with_recorder(test)


@pytest.mark.parametrize("is_client_sending", [False, True])
def test_client_that_sends_on_gets_the_answer(is_client_sending: bool) -> None:
    """Even a client that is still sending gets the whole answer; the connection is not reset."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        server, client = socket.socketpair()
        client.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, server)
        writes = JoinedWrites(transport, loop, rest_timeout_seconds=10)
        if is_client_sending:
            await loop.sock_sendall(client, b"a part of a body")
        writes.is_client_sending = is_client_sending
        writes.write(b"answer")
        writes.close()
        if is_client_sending:
            await loop.sock_sendall(client, b"another part")
        assert await loop.sock_recv(client, 100) == b"answer"
        assert await loop.sock_recv(client, 100) == b""
        client.close()
        async with asyncio.timeout(5):
            while not transport.is_closing():  # noqa: ASYNC110  the transport sets no event
                await asyncio.sleep(0.01)
        writes.stop_waiting()

    asyncio.run(test())


def test_other_calls_reach_the_transport() -> None:
    """Calls that JoinedWrites does not define go to its transport."""

    async def test(writes: JoinedWrites, recorder: Recorder) -> None:
        writes.resume_reading()
        assert recorder.calls == ["resume_reading"]

    run_with_recorder(test)
