"""Attacks a real server and counts what it loses, for ``docs/reliability.md``.

See ``make torture``. The exit code is 1 if anything was lost.
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

import numpy as np
import psutil
from PIL import Image, PngImagePlugin

from service.bundle import MODEL_FILE, newest_version, read_bundle, write_bundle
from service.server.protocol import LimitedProtocol
from service.settings import Settings
from tests.benchmarks.bench import replace_part
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
from tests.benchmarks.pace import port_of
from tests.e2e.server import Server, serving
from tests.service.images import encode, fault, noise

BUNDLE = newest_version(Settings().models[0])  # the model that gave the golden set's answers
UPLOADS_IN_FLIGHT = 16
USERS = 2 * UPLOADS_IN_FLIGHT
UPLOAD_TIMEOUT_SECONDS = 2
END_MARKER_BYTES = 2  # of a JPEG: without them it is whole, and is answered
REJECTIONS = {400, 408, 413, 415, 422, 503}


@dataclass(frozen=True)
class Row:
    """A row of the page's table."""

    fault: str
    description: str
    times: int
    result: str
    lost: int

    def __str__(self) -> str:
        return f"| {self.fault} | {self.description} | {self.times} | {self.result} | {self.lost} |"


# ---- load with faults ----------------------------------------------------------------------------


async def storm(seconds: float, uploads: list[Upload]) -> list[Row]:
    """Load a server with twice its capacity and with hostile clients, and watch its memory."""
    with serving(
        device="cpu",
        max_uploads_in_flight=UPLOADS_IN_FLIGHT,
        upload_timeout_seconds=UPLOAD_TIMEOUT_SECONDS,
    ) as server:
        faults = [Fault(*kind) for kind in FAULTS]
        async with (
            Load(port_of(server), uploads, USERS).running() as tally,
            AsyncExitStack() as stack,
        ):
            for kind in faults:
                await stack.enter_async_context(kind.going_on(port_of(server)))
            memory = await _watch_memory(psutil.Process(server.process.pid), seconds)
        assert server.process.poll() is None
        tracebacks = server.read_log().count("Traceback")
    p50, p99 = tally.percentile_ms(50), tally.percentile_ms(99)
    overloaded = Row(
        "twice the capacity",
        f"{USERS} clients for {seconds:g} s beside the attackers of the next {len(faults)} rows; "
        f"{UPLOADS_IN_FLIGHT} uploads are allowed at a time",
        tally.ended,
        f"{len(tally.seconds)} right answers (p50 {p50:.0f} ms, p99 {p99:.0f} ms), "
        f"{len(tally.rejected)} rejected with 503, {tracebacks} tracebacks in the log",
        len(tally.wrong) + len(tally.unanswered) + tracebacks,
    )
    return [overloaded, *(kind.row() for kind in faults), memory]


class Fault:
    """Two hostile clients of one kind. ``attack`` returns the answer's status, or None."""

    def __init__(
        self, name: str, description: str, attack: Callable[[int], Awaitable[int | None]]
    ) -> None:
        self.name = name
        self.description = description
        self.attack = attack
        self.statuses: Counter[int | None] = Counter()

    @asynccontextmanager
    async def going_on(self, port: int) -> AsyncIterator[None]:
        """Attack the server until the block ends."""
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
        """Return the row of this attack. An unexpected status counts as lost."""
        got = ", ".join(
            f"{status or 'no answer'}: {count}" for status, count in self.statuses.most_common()
        )
        expected = {200, 503} if self.attack is upload_large_image else REJECTIONS | {None}
        lost = sum(count for status, count in self.statuses.items() if status not in expected)
        return Row(self.name, self.description, self.statuses.total(), got, lost)


async def vanish(port: int) -> None:
    """Hang up during an upload or just after it."""
    content = fault("photo.png")
    message = head(len(content)) + content
    async with connected(port) as connection:
        await connection.send(message[: random.randint(1, len(message))])
        await asyncio.sleep(random.uniform(0, 0.05))


async def dribble(port: int) -> int | None:
    """Send a body byte by byte, slower than the service allows."""
    async with connected(port) as connection:
        await connection.send(head(1_000_000))
        answer = asyncio.ensure_future(_status(connection))
        while not answer.done():
            connection.writer.write(b"x")
            await asyncio.wait([answer], timeout=0.1)
        return answer.result()


async def fall_silent(port: int) -> int | None:
    """Send a part of a request's head, and wait until the server closes the connection."""
    async with connected(port) as connection:
        await connection.send(head(1000)[:40])
        return await _status(connection)


async def bomb(port: int) -> int | None:
    """Upload a small file that is huge after decompression."""
    return await _send(port, _message(random.choice(BOMBS)))


async def upload_large_image(port: int) -> int | None:
    """Upload an image just below the limit on pixels, so that memory soon reaches its peak."""
    await asyncio.sleep(random.uniform(0, 5))
    return await _send(port, _message(random.choice((LARGE_IMAGE, LONG_TEXT))))


async def garbage(port: int) -> int | None:
    """Upload random bytes, a cut image, a damaged form or text, or send bytes that are not HTTP."""
    photo = fault("cmyk.jpg")
    messages = (
        _message(random.randbytes(random.randrange(5000))),
        _message(photo[: random.randrange(len(photo) - END_MARKER_BYTES)]),
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
LONG_TEXT = _text_bomb()
BOMBS = (
    fault("bomb-30000x30000.png"),
    fault("bomb-8000x8000.avif"),
    _frame_bomb(),
)
FAULTS = (
    (
        "client vanishes",
        "hangs up at a random byte of the upload, or while it waits for the answer",
        vanish,
    ),
    (
        "slowloris",
        f"sends a body at 10 bytes a second; {UPLOAD_TIMEOUT_SECONDS} s are allowed",
        dribble,
    ),
    (
        "silent client",
        "sends a part of a request's head, then nothing; "
        f"{LimitedProtocol.head_timeout_seconds:g} s are allowed",
        fall_silent,
    ),
    (
        "decompression bomb",
        "900 Mpixel PNG, 81 Mpixel GIF, 64 Mpixel in 1 kB of AVIF",
        bomb,
    ),
    (
        "large image",
        f"49 Mpixel in {len(LARGE_IMAGE) // 1000} kB of PNG, within the limits; 50 MB of text in "
        f"{len(LONG_TEXT) // 1000} kB of PNG, which is not unpacked",
        upload_large_image,
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
    """Sample the memory of ``process``; fit a line to the samples after the first fifth."""
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
        f"resident size during all rows above, sampled for {seconds:g} s, without the first fifth",
        len(sizes),
        f"{sizes.min():.0f} to {sizes.max():.0f} MiB; slope {slope * 60:+.2f} MiB/min, "
        f"{drift:+.1f} MiB in all; standard deviation from the fit {noise_mib:.1f} MiB",
        int(drift > 3 * max(noise_mib, 1)),
    )


# ---- processes that stop or are killed -----------------------------------------------------------


async def terminate(rounds: int, uploads: list[Upload]) -> Row:
    """Stop servers under load; a request that is in the server's log and unanswered is lost."""
    accepted = in_flight = right = rejected = lost = 0
    for _ in range(rounds):
        with serving(device="cpu", max_uploads_in_flight=UPLOADS_IN_FLIGHT) as server:
            async with Load(port_of(server), uploads, USERS).running() as tally:
                await tally.wait_for_answers(10 * USERS)
                in_flight += len(tally.in_flight)
                server.process.send_signal(signal.SIGTERM)
                code = await asyncio.to_thread(server.process.wait, 60)
            logged = _logged_requests(server)
            accepted += len(logged)
            right += len(tally.seconds)
            rejected += len(tally.rejected)
            lost += len(tally.wrong) + len(logged & tally.unanswered.keys()) + abs(code)
    return Row(
        "SIGTERM",
        f"sent under the load of {USERS} clients; the server's log names the requests it accepted",
        rounds,
        f"{in_flight} requests in flight at the signal; of {accepted} accepted in all, "
        f"{right} answered right and {rejected} rejected with 503",
        lost,
    )


def _logged_requests(server: Server) -> set[str]:
    lines = server.read_log().splitlines()
    return {str(json.loads(line).get("request_id")) for line in lines if '"torture-' in line}


async def kill_worker(rounds: int, uploads: list[Upload]) -> Row:
    """Kill one of two workers, again and again; only the requests on its connections may fail."""
    in_flight = lost = 0
    with serving(device="cpu", workers=2) as server:
        supervisor = psutil.Process(server.process.pid)
        await asyncio.to_thread(_wait_for_two_ready, server)
        async with Load(port_of(server), uploads, USERS).running() as tally:
            for _ in range(rounds):
                before = set(tally.unanswered)
                victim = random.choice(supervisor.children())
                # No await from here to the kill, so no client sends anything in between.
                victim.suspend()
                victim_ports = {
                    connection.raddr.port
                    for connection in victim.net_connections()
                    if connection.raddr
                }
                in_flight += len(victim_ports & set(tally.in_flight.values()))
                victim.kill()
                await tally.wait_for_answers(10 * USERS)
                await until(lambda: len(supervisor.children()) == 2)
                await asyncio.to_thread(_wait_for_two_ready, server)
                await tally.wait_for_answers(10 * USERS)
                failed = [
                    port for request, port in tally.unanswered.items() if request not in before
                ]
                # A connection carries one request at a time: a second failure on it is a loss.
                lost += len(set(failed) - victim_ports) + len(failed) - len(set(failed))
        lost += len(tally.wrong) + len(tally.rejected)
    return Row(
        "kill -9 of one of two workers",
        f"under the load of {USERS} clients; only requests on that worker's connections may fail",
        rounds,
        f"{in_flight} requests in flight in the killed workers, "
        f"{len(tally.unanswered)} unanswered; {len(tally.seconds)} others answered right, "
        f"{len(tally.rejected)} rejected",
        lost,
    )


def _wait_for_two_ready(server: Server) -> None:
    started = time.monotonic()
    while server.read_log().count("serves on") < 2 + server.read_log().count("is replaced"):
        assert time.monotonic() < started + 60
        time.sleep(0.05)


# ---- models that are swapped under load ----------------------------------------------------------


async def swap(rounds: int, uploads: list[Upload], *, corrupt: bool) -> Row:
    """Publish new versions under load; a failed request or a corrupt version's answer is lost."""
    with TemporaryDirectory() as temporary:
        folder, staging = Path(temporary) / "models", Path(temporary) / "staging"
        _publish(staging, folder, "0")
        with serving(device="cpu", models=folder, check_interval_seconds=0.2) as server:
            async with Load(port_of(server), uploads, USERS // 4).running() as tally:
                for version in map(str, range(1, rounds + 1)):
                    _publish(staging, folder, version, corrupt=corrupt)
                    await until(partial(_is_decided, server, tally, version, corrupt=corrupt))
                    await tally.wait_for_answers(USERS)
    corrupt_versions = len(tally.versions - {"0"}) if corrupt else 0
    return Row(
        "corrupt model" if corrupt else "new model",
        f"published as the newest version under the load of {USERS // 4} clients",
        rounds,
        f"{'rejected' if corrupt else 'took over'} each time; "
        f"{len(tally.seconds)} requests answered right",
        len(tally.wrong) + len(tally.rejected) + len(tally.unanswered) + corrupt_versions,
    )


def _is_decided(server: Server, tally: Tally, version: str, *, corrupt: bool) -> bool:
    return (
        server.read_log().count("is rejected") == int(version)
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


# ---- the page ------------------------------------------------------------------------------------

PART = """\
In this run: {lost}. `make torture SECONDS={seconds:g}` attacks a real server on loopback, counts
the answers and writes this part. The test suite runs the same attacks for a few seconds.

*Lost* counts what must not happen: a wrong answer, no answer to an accepted request, a 5xx other
than 503, a traceback in the log, growing memory. The valid uploads are the golden set: 300 images
with known probabilities. An answer is right if it has the probabilities of its own image.

| fault | what happens | times | result | lost |
|---|---|---:|---|---:|
{rows}

Measured on {day} with {cores} cores of {machine}, Python {python}. The clients shared the cores
with the server."""


async def torture(seconds: float) -> list[Row]:
    """Run all attacks: the load for ``seconds``, each other attack ``seconds / 15`` times."""
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
    """Write the part ``torture`` of the page at ``path``."""
    text = PART.format(
        lost=sum(row.lost for row in rows) or "nothing",
        seconds=seconds,
        rows="\n".join(map(str, rows)),
        day=datetime.now(UTC).date(),
        cores=os.cpu_count(),
        machine=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )
    replace_part(path, "torture", text)


def main() -> int:
    """Run the command line; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.torture", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=300, help="duration of the load with faults"
    )
    parser.add_argument(
        "--output", type=Path, help="the document to update; without it, print only"
    )
    arguments = parser.parse_args()
    rows = asyncio.run(torture(arguments.seconds))
    print(*rows, sep="\n")
    if arguments.output:
        write_document(arguments.output, rows, arguments.seconds)
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
