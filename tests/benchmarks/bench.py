"""Measure the service beside a tutorial's and beside the ceilings, and write ``docs/performance.md``.

Run by ``make bench`` on a machine with nothing else to do. Each cell is measured between two of the tutorial app.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
import onnxruntime
import psutil
import uvloop
from numpy.typing import NDArray
from PIL import Image

from service.bundle import read_bundle
from service.imaging.model_input import read_image
from service.machine.sizing import count_workers
from service.settings import Settings
from tests import golden
from tests.benchmarks.pace import HOST, Request, Result, closed_loop, open_loop
from tests.e2e.server import ROOT, Server, free_port, serving
from tests.service.images import encode

BUNDLE = ROOT / "models" / "convnet-tf1" / "1"
DEFAULT = Settings().model
SIZE = (28, 28)
BOUNDARY = "bench"
CONNECTIONS = (1, 16, 64)
PHOTO_WIDTHS = (400, 1600, 4000)  # beside 800
BATCH_FILES, TENSOR_IMAGES = 100, 1000


@dataclass(frozen=True)
class Cell:
    """One measurement of the service between two of the tutorial app."""

    work: str
    connections: int
    ours: Result
    before: Result
    after: Result
    ceiling: Result

    def __str__(self) -> str:
        reference = (self.before.rate + self.after.rate) / 2
        return (
            f"| {self.work} | {self.connections} | {reference:,.0f} | {self.ours.rate:,.0f} | "
            f"**{self.ours.rate / reference:.2f}** | {self.ours.percentile_ms(50):.1f} / "
            f"{self.before.percentile_ms(50):.1f} | {self.ours.percentile_ms(99):.1f} / "
            f"{self.before.percentile_ms(99):.1f} | {self.ceiling.rate:,.0f} | {self.ours.wrong} |"
        )


# ---- what is sent -------------------------------------------------------------------------------------------------


def photo(image: NDArray[np.uint8], generator: np.random.Generator, width: int = 800) -> bytes:
    """Make a JPEG of 4 to 3 of an item on a light, noisy ground."""
    unit = width // 40
    side = 28 * unit
    item = 255 - np.asarray(
        Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    ).astype(np.float32)
    canvas = np.full((30 * unit, 40 * unit), 245, np.float32)
    canvas[unit : unit + side, 6 * unit : 6 * unit + side] = np.minimum(item, 245)
    noisy = canvas[..., None] * (1, 0.98, 0.95) + generator.normal(0, 6, (*canvas.shape, 1))
    return encode(noisy.clip(0, 255).astype(np.uint8), "JPEG", quality=88)


def request(path: str, upload: bytes, content_type: str, expected: bytes) -> Request:
    """Put an upload into a form and that into a request."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: {content_type}'
    body = part.encode() + b"\r\n\r\n" + upload + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(head.encode() + body, expected)


def png_requests(bundle: Path = BUNDLE) -> list[Request]:
    """Make requests for the golden set; an answer must name the class that the session itself names."""
    images, names = golden.images(), read_bundle(bundle).manifest.class_names
    answers = open_session(bundle).run(["probabilities"], {"image": images})[0].argmax(axis=1)
    return [
        request("/predict", encode(image), "image/png", f'"class_name":"{names[answer]}"'.encode())
        for image, answer in zip(images, answers, strict=True)
    ]


@contextmanager
def app(name: str, **environment: str) -> Iterator[int]:
    """Run an ASGI app of this folder on one uvicorn worker, as tutorials do; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"tests.benchmarks.{name}:app", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--log-level", "warning"], cwd=ROOT, env=os.environ | environment
    )
    try:
        while process.poll() is None:
            try:
                httpx2.get(f"http://{HOST}:{port}/docs")
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Spent:
    """What the service has spent since it started: its processes' CPU, and what its metrics sum up, over all images."""

    cpu_seconds: float
    images: float
    decode_seconds: float
    inference_seconds: float

    @classmethod
    def of(cls, server: Server) -> Spent:
        """Read it."""
        lines = (line.rpartition(" ") for line in server.get("/metrics").text.splitlines())
        values = {
            name: float(value)
            for name, _, value in lines
            if name.startswith("service_") and "{" not in name
        }
        process = psutil.Process(server.process.pid)
        return cls(
            sum(sum(member.cpu_times()[:2]) for member in (process, *process.children())),
            values["service_batch_size_count"],
            values["service_decode_seconds_sum"],
            values["service_inference_seconds_sum"],
        )

    def since(self, before: Spent) -> str:
        """Render an image's share of what was spent since ``before`` as columns of a table, in microseconds."""
        cpu, images, decode, inference = (
            now - then for now, then in zip(astuple(self), astuple(before), strict=True)
        )
        parts = [1e6 * each / images for each in (cpu, decode, inference)]
        return " | ".join(f"{each:,.0f}" for each in (*parts, parts[0] - parts[1] - parts[2]))


# ---- what is measured ---------------------------------------------------------------------------------------------


class Bench:
    """The servers side by side, and what is sent to them."""

    def __init__(self, server: Server, tutorial: int, ceiling: int, seconds: float) -> None:
        self.server = server
        self.port = int(server.url.rsplit(":", 1)[1])
        self.tutorial = tutorial
        self.ceiling = ceiling
        self.seconds = seconds
        self.images = golden.images()
        self.session = open_session()
        self.pngs = png_requests()
        generator = np.random.default_rng(0)
        self.photos = [photo(image, generator) for image in self.images[:24]]
        # What the tutorial makes of a photo is another thing than what the service does: any answer is right.
        self.jpegs = [
            request("/predict", upload, "image/jpeg", b'"class_name":') for upload in self.photos
        ]

    async def compare(self, work: str, requests: list[Request], connections: int) -> Cell:
        """Measure one cell: the tutorial app, the service, the tutorial app again, the ceiling."""
        ports = self.tutorial, self.port, self.tutorial
        results = [await closed_loop(port, requests, connections, self.seconds) for port in ports]
        answered = [
            Request(each.message, b'"class_name":') for each in requests
        ]  # one answer fits all
        results.append(await closed_loop(self.ceiling, answered, connections, self.seconds))
        for result in results:
            assert result.statuses.keys() == {200}, result.statuses
        before, ours, after, ceiling = results
        return Cell(work, connections, ours, before, after, ceiling)

    async def profile(self, work: str, requests: list[Request]) -> str:
        """Tell what an answer costs, and which part of it; a row of a table.

        One connection: beside others, a step would also wait for a core, and its time would not be its cost.
        """
        before = Spent.of(self.server)
        await closed_loop(self.port, requests, 1, self.seconds)
        return f"| {work} | {Spent.of(self.server).since(before)} |"

    async def overload(self, capacity: float) -> str:
        """Send small images at twice ``capacity``, whatever becomes of them."""
        result = await open_loop(self.port, self.pngs, 2 * capacity, 512, 2 * self.seconds)
        refused = (
            np.percentile(result.refusal_seconds, 99) * 1000
            if result.refusal_seconds
            else float("nan")
        )
        return (
            f"At twice that rate in an open loop of 512 connections: {result.rate:,.0f} right answers a second "
            f"({result.rate / capacity:.0%} of {capacity:,.0f}), p99 {result.percentile_ms(99):.0f} ms; "
            f"{result.statuses[503] / result.duration_seconds:,.0f} a second refused with 503, p99 {refused:.0f} ms; "
            f"wrong or other: {result.wrong}."
        )

    def batches(self) -> list[str]:
        """Time batches in one request against the session itself, in turns; rows of a table."""
        url = self.server.url + "/predict/batch"
        tensor = np.resize(self.images, (TENSOR_IMAGES, *SIZE))
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Shape": ",".join(map(str, tensor.shape)),
        }
        files = [("file", encode(image)) for image in self.images[:BATCH_FILES]]
        session = open_session()
        with httpx2.Client() as client:
            sent = client.build_request("POST", url, files=files)
            body, form = sent.read(), dict(sent.headers)
            times = interleave(
                lambda: run_in_batches(session, tensor),
                lambda: client.post(url, content=body, headers=form).raise_for_status(),
                lambda: client.post(
                    url, content=tensor.tobytes(), headers=headers
                ).raise_for_status(),
            )
        rates = [
            count / seconds
            for count, seconds in zip(
                (TENSOR_IMAGES, BATCH_FILES, TENSOR_IMAGES), times, strict=True
            )
        ]
        labels = (
            "`session.run` in this process, batches of 32",
            f"{BATCH_FILES} PNGs in a form",
            f"tensor of {TENSOR_IMAGES} images",
        )
        return [
            f"| {label} | {rate:,.0f} | {rate / rates[0]:.2f} |"
            for label, rate in zip(labels, rates, strict=True)
        ]

    def ceilings(self) -> list[str]:
        """Time the parts of the work in this process, on one thread; rows of a table."""
        png, jpeg, generator = encode(self.images[0]), self.photos[0], np.random.default_rng(0)

        def infer(size: int) -> Callable[[], object]:
            return lambda: self.session.run(["probabilities"], {"image": self.images[:size]})

        def decode(upload: bytes) -> Callable[[], object]:
            return lambda: read_image(upload, SIZE, 10**8)

        def squash() -> object:
            return np.asarray(Image.open(BytesIO(jpeg)).convert("L").resize(SIZE))

        parts = {
            "`session.run`, 1 image": (infer(1), 1),
            "`session.run`, 8 images": (infer(8), 8),
            "`session.run`, 32 images": (infer(32), 32),
            "28x28 PNG to the model's input": (decode(png), 1),
            "800x600 JPEG to the model's input": (decode(jpeg), 1),
            "800x600 JPEG, squashed as the tutorial does": (squash, 1),
        }
        for width in PHOTO_WIDTHS:
            larger = decode(photo(self.images[0], generator, width))
            parts[f"{width}x{width * 3 // 4} JPEG to the model's input"] = larger, 1
        times = interleave(*(call for call, _ in parts.values()))
        return [
            f"| {name} | {seconds / images * 1e6:,.0f} |"
            for (name, (_, images)), seconds in zip(parts.items(), times, strict=True)
        ]


def open_session(bundle: Path = BUNDLE) -> onnxruntime.InferenceSession:
    """Open the model as the service does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        bundle / "model.onnx", options, providers=["CPUExecutionProvider"]
    )


def run_in_batches(session: onnxruntime.InferenceSession, tensor: NDArray[np.uint8]) -> None:
    """Infer a tensor by 32 images at a time."""
    for start in range(0, len(tensor), 32):
        session.run(["probabilities"], {"image": tensor[start : start + 32]})


def interleave(*calls: Callable[[], object], rounds: int = 7) -> list[float]:
    """Return the median seconds of each call; they take turns, so that noise hits all alike."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, seconds in zip(calls, times, strict=True):
            repeats = 0
            started = time.perf_counter()
            while time.perf_counter() - started < 0.05:
                call()
                repeats += 1
            seconds.append((time.perf_counter() - started) / repeats)
    return [float(np.median(seconds)) for seconds in times]


async def workers(seconds: float, pngs: list[Request], jpegs: list[Request]) -> list[str]:
    """Measure the service with several numbers of workers, of one thread each; rows of a table."""
    rows = []
    for count in (1, 2, 4):
        with serving(**SERVED | {"workers": count, "threads": 1}) as server:
            port = int(server.url.rsplit(":", 1)[1])
            results = [
                await closed_loop(port, requests, CONNECTIONS[-1], seconds)
                for requests in (pngs, jpegs)
            ]
        for result in results:
            assert result.statuses.keys() == {200}, result.statuses
        rows.append(
            f"| {count} | " + " | ".join(f"{result.rate:,.0f}" for result in results) + " |"
        )
    return rows


def start_and_idle() -> list[str]:
    """Start the service as it is by default, and let it do nothing; rows of a table."""
    importing = min(timed([sys.executable, "-c", "import service.server.worker"]) for _ in range(3))
    nothing = min(timed([sys.executable, "-c", "pass"]) for _ in range(3))
    bare = resident_mib([sys.executable, "-c", "import onnxruntime; print(flush=True); input()"])
    started = time.perf_counter()
    with serving(**SERVED) as server:
        ready = time.perf_counter() - started
        family = [process := psutil.Process(server.process.pid), *process.children()]
        time.sleep(2)
        before = sum(sum(member.cpu_times()[:2]) for member in family)
        time.sleep(10)
        share = (sum(sum(member.cpu_times()[:2]) for member in family) - before) / 10
        sizes = [member.memory_info().rss / 2**20 for member in family]
    return [
        f"| from the command to ready | {ready:.1f} s |",
        f"| `import service.server.worker`, less the bare interpreter | {importing - nothing:.2f} s |",
        f"| CPU when idle, all processes | {share:.1%} of a core |",
        f"| memory of a worker with `convnet-tf1`, idle | {max(sizes):.0f} MiB; "
        f"the interpreter with onnxruntime has {bare:.0f} MiB |",
        f"| processes | {len(family)}, of which the supervisor has {sizes[0]:.0f} MiB |"
        if len(family) > 1
        else "",
    ]


def timed(command: list[str]) -> float:
    """Time a command, in seconds."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    return time.perf_counter() - started


def resident_mib(command: list[str]) -> float:
    """Return the resident size of a process that has printed a line and waits for another."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        size: float = psutil.Process(process.pid).memory_info().rss / 2**20
        process.communicate(b"\n")
    return size


SERVED = {"device": "cpu", "model": BUNDLE, "workers": count_workers(Settings(device="cpu"))}


async def measure(seconds: float) -> dict[str, str]:
    """Measure everything; return the parts of the document by name."""
    with (
        serving(**SERVED) as server,
        app("tutorial", MODEL=str(BUNDLE / "model.onnx")) as tutorial,
        app("ceiling") as ceiling,
    ):
        bench = Bench(server, tutorial, ceiling, seconds)
        cells = [await bench.compare("28x28 PNG", bench.pngs, count) for count in CONNECTIONS]
        cells += [await bench.compare("800x600 JPEG", bench.jpegs, count) for count in CONNECTIONS]
        overload = await bench.overload(cells[2].ours.rate)
        await asyncio.sleep(1)  # for what the service still has of that
        works = {"28x28 PNG": bench.pngs, "800x600 JPEG": bench.jpegs}
        profile = [await bench.profile(work, requests) for work, requests in works.items()]
        batches = bench.batches()
        ceilings = bench.ceilings()
        with serving(**SERVED | {"model": DEFAULT}) as default:
            bench.port = int(default.url.rsplit(":", 1)[1])
            work, requests = f"28x28 PNG, `{DEFAULT.parent.name}`", png_requests(DEFAULT)
            cells += [await bench.compare(work, requests, count) for count in CONNECTIONS]
    rows = await workers(seconds, bench.pngs, bench.jpegs)
    return {
        "cells": "\n".join(map(str, cells)),
        "overload": overload,
        "profile": "\n".join(profile),
        "workers": "\n".join(rows),
        "batches": "\n".join(batches),
        "ceilings": "\n".join(ceilings),
        "start": "\n".join(filter(None, start_and_idle())),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="how long each cell is measured")
    parser.add_argument(
        "--output", type=Path, help="the document whose figures to replace; printed without"
    )
    arguments = parser.parse_args()
    parts = uvloop.run(measure(arguments.seconds))
    parts["machine"] = (
        f"Measured on {datetime.now(UTC).date()} with {os.cpu_count()} cores of {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}; the load "
        "generator shared the cores with the servers."
    )
    for name, text in parts.items():
        print(f"{name}\n{text}\n")
        if arguments.output:
            replace_part(arguments.output, name, text)


def replace_part(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the document's marks of a part; a document without them is an error (ValueError)."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
