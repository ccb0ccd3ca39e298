"""Torture a real server on loopback, count what is lost, and write ``docs/reliability.md``.

Run by ``make torture``; it ends by itself and exits 1 if anything was lost that must not be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image, PngImagePlugin

from service.bundle import MODEL_FILE, read_bundle, write_bundle
from service.server.protocol import HEAD_TIMEOUT_SECONDS
from service.settings import Settings
from tests.benchmarks.load import (
    BROKEN,
    Connection,
    Load,
    Tally,
    Upload,
    connected,
    golden_uploads,
    head,
    until,
)
from tests.e2e.server import Server, serving
from tests.service.images import encode, fault, noise

BUNDLE = Settings().model  # whose answers the golden set has
UPLOADS_IN_FLIGHT = 16
USERS = 2 * UPLOADS_IN_FLIGHT
UPLOAD_TIMEOUT_SECONDS = 2
REFUSALS = {400, 408, 413, 415, 422, 503}


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    fault: str
    done: str
    times: int
    seen: str
    lost: int

    def __str__(self) -> str:
        return f"| {self.fault} | {self.done} | {self.times} | {self.seen} | {self.lost} |"


# ---- load with faults mixed in ------------------------------------------------------------------------------------


async def storm(seconds: float, uploads: list[Upload]) -> list[Row]:
    """Load a server twice as much as it holds, with hostile clients mixed in, and watch its memory."""
    with serving(
        device="cpu",
        max_uploads_in_flight=UPLOADS_IN_FLIGHT,
        upload_timeout_seconds=UPLOAD_TIMEOUT_SECONDS,
    ) as server:
        faults = [Fault(*kind) for kind in FAULTS]
        async with (
            Load(_port(server), uploads, USERS).running() as tally,
            AsyncExitStack() as stack,
        ):
            for kind in faults:
                await stack.enter_async_context(kind.going_on(_port(server)))
            memory = await _watch_memory(psutil.Process(server.process.pid), seconds)
        assert server.process.poll() is None
        tracebacks = server.read_log().count("Traceback")
    good = Row(
        "twice the load that it holds",
        f"{USERS} clients, {UPLOADS_IN_FLIGHT} uploads admitted at a time, {seconds:g} s, all of the below mixed in",
        tally.asked,
        f"{len(tally.seconds)} right answers (p50 {tally.percentile_ms(50):.0f} ms, p99 {tally.percentile_ms(99):.0f} "
        f"ms), {len(tally.refused)} refused with 503, {tracebacks} tracebacks in the log",
        len(tally.wrong) + len(tally.unanswered) + tracebacks,
    )
    return [good, *(kind.row() for kind in faults), memory]


class Fault:
    """Hostile clients of one kind, a few at a time; ``attack`` returns the status that one of them got, or None."""

    def __init__(
        self, name: str, done: str, attack: Callable[[int], Awaitable[int | None]]
    ) -> None:
        self.name = name
        self.done = done
        self.attack = attack
        self.statuses: Counter[int | None] = Counter()

    @asynccontextmanager
    async def going_on(self, port: int) -> AsyncIterator[None]:
        """Attack the server without a pause."""
        attackers = [asyncio.create_task(self._go_on(port)) for _ in range(2)]
        try:
            yield
        finally:
            for attacker in attackers:
                attacker.cancel()
        for result in await asyncio.gather(*attackers, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result

    async def _go_on(self, port: int) -> None:
        while True:
            self.statuses[await self.attack(port)] += 1
            await asyncio.sleep(0.01)

    def row(self) -> Row:
        """Tell what they got; what they must not get counts as lost."""
        got = ", ".join(
            f"{status or 'no answer'}: {count}" for status, count in self.statuses.most_common()
        )
        expected = {200, 503} if self.attack is overload else REFUSALS | {None}
        lost = sum(count for status, count in self.statuses.items() if status not in expected)
        return Row(self.name, self.done, self.statuses.total(), got, lost)


async def vanish(port: int) -> None:
    """Hang up at any moment of an upload."""
    content = fault("photo.png")
    message = head(len(content)) + content
    async with connected(port) as connection:
        await connection.send(message[: random.randint(1, len(message))])
        await asyncio.sleep(random.uniform(0, 0.05))


async def dribble(port: int) -> int | None:
    """Send a body byte by byte, much slower than allowed."""
    async with connected(port) as connection:
        await connection.send(head(1_000_000))
        answer = asyncio.ensure_future(_status(connection))
        while not answer.done():
            connection.writer.write(b"x")
            await asyncio.wait([answer], timeout=0.1)
        return answer.result()


async def fall_silent(port: int) -> int | None:
    """Send a part of a request's head, and wait to be hung up on."""
    async with connected(port) as connection:
        await connection.send(head(1000)[:40])
        return await _status(connection)


async def bomb(port: int) -> int | None:
    """Upload a small file that is huge once decompressed."""
    return await _send(port, _message(random.choice(BOMBS)))


async def overload(port: int) -> int | None:
    """Upload an image that is as large as is allowed, so that memory has soon seen the most that it will."""
    await asyncio.sleep(random.uniform(0, 5))
    return await _send(port, _message(LARGE_IMAGE))


async def garbage(port: int) -> int | None:
    """Upload what is no image, or the beginning of one, or a damaged form; or send what is no HTTP."""
    photo = fault("cmyk.jpg")
    messages = (
        _message(random.randbytes(random.randrange(5000))),
        _message(photo[: random.randrange(len(photo))]),
        _message(random.randbytes(500), "multipart/form-data; boundary=x"),
        _message(b"x", "text/plain"),
        random.randbytes(500) + b"\r\n\r\n",
    )
    return await _send(port, random.choice(messages))


def _text_bomb() -> bytes:
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("comment", "x" * 50_000_000, zip=True)
    return encode(noise(28, 28), pnginfo=chunk)


def _frame_bomb() -> bytes:
    frames = [Image.new("L", (9000, 9000), shade) for shade in (0, 255)]
    buffer = BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


LARGE_IMAGE = encode(Image.new("L", (7000, 7000)))
BOMBS = (
    fault("bomb-30000x30000.png"),
    fault("bomb-8000x8000.avif"),
    _text_bomb(),
    _frame_bomb(),
)
FAULTS = (
    (
        "client vanishes",
        "hung up at a random byte of the upload, or while it waited for the answer",
        vanish,
    ),
    (
        "slowloris",
        f"body sent at 10 bytes a second; {UPLOAD_TIMEOUT_SECONDS} s are allowed",
        dribble,
    ),
    (
        "silent client",
        f"a part of a request's head, and nothing more; {HEAD_TIMEOUT_SECONDS:g} s are allowed",
        fall_silent,
    ),
    (
        "decompression bomb",
        "900 Mpixel PNG, 50 MB of text in 50 kB of PNG, 81 Mpixel GIF, 64 Mpixel in 1 kB of AVIF",
        bomb,
    ),
    (
        "large image",
        f"49 Mpixel in {len(LARGE_IMAGE) // 1000} kB of PNG, which is allowed",
        overload,
    ),
    (
        "garbage",
        "random bytes as image, as form and as HTTP; JPEG cut off; wrong content type",
        garbage,
    ),
)


def _message(content: bytes, content_type: str = "image/png") -> bytes:
    return head(len(content), content_type) + content


async def _send(port: int, message: bytes) -> int | None:
    async with connected(port) as connection:
        connection.writer.write(message)
        return await _status(connection)


async def _status(connection: Connection) -> int | None:
    try:
        return (await connection.receive()).status
    except BROKEN:
        return None


async def _watch_memory(process: psutil.Process, seconds: float) -> Row:
    """Sample the memory of ``process``; the slope is a least-squares fit to what follows the first fifth."""
    started = time.monotonic()
    samples: list[tuple[float, float]] = []
    while (now := time.monotonic() - started) < seconds:
        samples.append((now, process.memory_info().rss / 2**20))
        await asyncio.sleep(min(1, seconds / 20))
    times, sizes = np.array(samples[len(samples) // 5 :]).T
    slope, _ = np.polyfit(times, sizes, 1)
    noise_mib = float(np.std(sizes - np.polyval(np.polyfit(times, sizes, 1), times)))
    drift = slope * (times[-1] - times[0])
    return Row(
        "memory",
        f"resident size under all of the above, sampled for {seconds:g} s, the first fifth left out",
        len(sizes),
        f"{sizes.min():.0f} to {sizes.max():.0f} MiB; slope {slope * 60:+.2f} MiB/min, {drift:+.1f} MiB in all; "
        f"standard deviation about it {noise_mib:.1f} MiB",
        int(drift > 3 * max(noise_mib, 1)),
    )


# ---- processes that are stopped and killed ------------------------------------------------------------------------


async def terminate(rounds: int, uploads: list[Upload]) -> Row:
    """Stop servers by SIGTERM under load; lost is what a server has taken on, by its own log, and not answered."""
    taken_on = in_flight = right = refused = lost = 0
    for _ in range(rounds):
        with serving(device="cpu", max_uploads_in_flight=UPLOADS_IN_FLIGHT) as server:
            async with Load(_port(server), uploads, USERS).running() as tally:
                await tally.answers(10 * USERS)
                in_flight += len(tally.in_flight)
                server.process.send_signal(signal.SIGTERM)
                code = await asyncio.to_thread(server.process.wait, 60)
            logged = _logged_requests(server)
            taken_on += len(logged)
            right += len(tally.seconds)
            refused += len(tally.refused)
            lost += len(tally.wrong) + len(logged & tally.unanswered.keys()) + abs(code)
    return Row(
        "SIGTERM",
        f"in the middle of the load of {USERS} clients; the server's log says what it had taken on",
        rounds,
        f"{in_flight} requests in flight at the signal; of {taken_on} taken on in all, {right} answered right and "
        f"{refused} refused with 503",
        lost,
    )


def _logged_requests(server: Server) -> set[str]:
    lines = server.read_log().splitlines()
    return {str(json.loads(line).get("request_id")) for line in lines if '"torture-' in line}


async def kill_worker(rounds: int, uploads: list[Upload]) -> Row:
    """Kill one of two workers, time and again; only what it had in flight may fail."""
    in_flight = lost = 0
    with serving(device="cpu", workers=2) as server:
        supervisor = psutil.Process(server.process.pid)
        await asyncio.to_thread(_wait_for_two_ready, server)
        async with Load(_port(server), uploads, USERS).running() as tally:
            for _ in range(rounds):
                before = set(tally.unanswered)
                victim = random.choice(supervisor.children())
                # Nothing is awaited from here to the kill, so that no client sends anything meanwhile.
                victim.suspend()
                doomed = {
                    connection.raddr.port
                    for connection in victim.net_connections()
                    if connection.raddr
                }
                in_flight += len(doomed & set(tally.in_flight.values()))
                victim.kill()
                await tally.answers(10 * USERS)
                await until(lambda: len(supervisor.children()) == 2)
                await asyncio.to_thread(_wait_for_two_ready, server)
                await tally.answers(10 * USERS)
                failed = [
                    port for request, port in tally.unanswered.items() if request not in before
                ]
                lost += len(set(failed) - doomed) + len(failed) - len(set(failed))
        lost += len(tally.wrong) + len(tally.refused)
    return Row(
        "kill -9 of one of two workers",
        f"under the load of {USERS} clients; only what was on that worker's connections may fail",
        rounds,
        f"{in_flight} requests in flight in the killed workers, {len(tally.unanswered)} unanswered; "
        f"{len(tally.seconds)} others answered right, {len(tally.refused)} refused",
        lost,
    )


def _wait_for_two_ready(server: Server) -> None:
    started = time.monotonic()
    while server.read_log().count("serves on") < 2 + server.read_log().count("is replaced"):
        assert time.monotonic() < started + 60
        time.sleep(0.05)


# ---- models that are swapped under load ---------------------------------------------------------------------------


async def swap(rounds: int, uploads: list[Upload], *, corrupt: bool) -> Row:
    """Publish one version after the other under load; no request fails, and a corrupt version answers none."""
    with TemporaryDirectory() as temporary:
        folder, staging = Path(temporary) / "models", Path(temporary) / "staging"
        _publish(staging, folder, "0")
        with serving(device="cpu", model=folder, check_interval_seconds=0.2) as server:
            async with Load(_port(server), uploads, USERS // 4).running() as tally:
                for version in map(str, range(1, rounds + 1)):
                    _publish(staging, folder, version, corrupt=corrupt)
                    await until(partial(_is_decided, server, tally, version, corrupt=corrupt))
                    await tally.answers(USERS)
    strays = len(tally.versions - {"0"}) if corrupt else 0
    return Row(
        "corrupt model" if corrupt else "new model",
        f"published as the newest version under the load of {USERS // 4} clients",
        rounds,
        f"{'refused' if corrupt else 'took over'} each time; {len(tally.seconds)} requests answered right",
        len(tally.wrong) + len(tally.refused) + len(tally.unanswered) + strays,
    )


def _is_decided(server: Server, tally: Tally, version: str, *, corrupt: bool) -> bool:
    return (
        server.read_log().count("is refused") == int(version)
        if corrupt
        else version in tally.versions
    )


def _publish(staging: Path, folder: Path, version: str, *, corrupt: bool = False) -> None:
    bundle = read_bundle(BUNDLE)
    contents = {name: (BUNDLE / name).read_bytes() for name in bundle.manifest.files}
    write_bundle(staging, bundle.manifest.model_copy(update={"version": version}), contents)
    if corrupt:
        (staging / MODEL_FILE).write_bytes(random.randbytes(1000))
    folder.mkdir(exist_ok=True)
    shutil.move(staging, folder / version)


def _port(server: Server) -> int:
    return urlsplit(server.url).port or 0


# ---- the document -------------------------------------------------------------------------------------------------

DOCUMENT = """\
# Reliability

`make torture SECONDS={seconds:g}` does all of this to a real server on loopback, counts, and writes this page; a short
form of it is part of the test suite. The images are the golden set: an answer is right if it holds the probabilities
that belong to its own image. *Lost* is what must not be: a wrong answer, no answer to a request that was taken on, a
5xx other than 503, a traceback in the log, memory that grows.

| fault | what was done | times | what was seen | lost |
|---|---|---:|---|---:|
{rows}

Measured on {day} with {cores} cores of {machine}, Python {python}; the clients shared the cores with the server.
"""


async def torture(seconds: float) -> list[Row]:
    """Do everything; the load goes on for ``seconds``, and the rest is repeated in proportion."""
    uploads = golden_uploads()
    rounds = max(1, round(seconds / 15))
    return [
        *await storm(seconds, uploads),
        await terminate(rounds, uploads),
        await kill_worker(rounds, uploads),
        await swap(rounds, uploads, corrupt=True),
        await swap(rounds, uploads, corrupt=False),
    ]


def write_document(path: Path, rows: Sequence[Row], seconds: float) -> None:
    """Render the table to ``path``."""
    text = DOCUMENT.format(
        seconds=seconds,
        rows="\n".join(map(str, rows)),
        day=datetime.now(UTC).date(),
        cores=os.cpu_count(),
        machine=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Run the command line; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.torture", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=300, help="how long the load with faults goes on"
    )
    parser.add_argument(
        "--output", type=Path, help="the document to write; none is written without"
    )
    arguments = parser.parse_args()
    rows = asyncio.run(torture(arguments.seconds))
    print(*rows, sep="\n")
    if arguments.output:
        write_document(arguments.output, rows, arguments.seconds)
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
