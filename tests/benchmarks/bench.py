"""Compares the service's speed with a tutorial's app, for ``docs/performance.md``: ``make bench``.

The machine must be idle. The tutorial's app is measured before and after each measurement of the
service.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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

from service.bundle import newest_version, read_bundle
from service.imaging.model_input import InputSpec, read_image
from service.machine.sizing import count_workers
from service.settings import Settings
from service.telemetry.metrics import SHARE_SECONDS
from tests import golden
from tests.benchmarks.pace import HOST, Request, Result, closed_loop, open_loop, port_of
from tests.e2e.server import ROOT, Server, free_port, serving
from tests.service.images import encode

BUNDLE = ROOT / "models" / "convnet-tf1" / "1"
DEFAULT = newest_version(Settings().models[0])
SIZE = (28, 28)
GREY = InputSpec("item-on-black", SIZE)
BOUNDARY = "bench"
CONNECTIONS = (1, 16, 64)
PHOTO_WIDTHS = (400, 1600, 4000)  # and 800, the width of all other photos
BATCH_FILES, TENSOR_IMAGES = 100, 1000


@dataclass(frozen=True)
class Cell:
    """The service's measurement between two of the tutorial's app: a row of the page's table."""

    work: str
    connections: int
    ours: Result
    before: Result
    after: Result
    ceiling: Result

    def __str__(self) -> str:
        reference = (self.before.rate + self.after.rate) / 2
        p50, p99 = (
            f"{self.ours.percentile_ms(percent):.1f} / {self.before.percentile_ms(percent):.1f}"
            for percent in (50, 99)
        )
        return (
            f"| {self.work} | {self.connections} | {reference:,.0f} | {self.ours.rate:,.0f} | "
            f"**{self.ours.rate / reference:.2f}** | {p50} | {p99} | "
            f"{self.ceiling.rate:,.0f} | {self.ours.wrong} |"
        )


# ---- requests and servers ------------------------------------------------------------------------


def photo(image: NDArray[np.uint8], generator: np.random.Generator, width: int = 800) -> bytes:
    """Draw an item on a light, noisy background; return a 4:3 JPEG, ``width`` pixels wide."""
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
    """Return a request with an upload in a form."""
    part = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    )
    body = part.encode() + upload + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(head.encode() + body, expected)


def png_requests(bundle: Path = BUNDLE) -> list[Request]:
    """Return requests for the golden set; the expected class comes from a plain ONNX Runtime."""
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
    """The service's totals since its start: CPU time, images, decoding, inference."""

    cpu_seconds: float
    images: float
    decode_seconds: float
    inference_seconds: float

    @classmethod
    def of(cls, server: Server) -> Spent:
        """Read the CPU time of the service's processes and the sums of its metrics."""
        time.sleep(SHARE_SECONDS)  # another worker's values may be so old
        sums: defaultdict[str, float] = defaultdict(float)
        for line in server.get("/metrics").text.splitlines():
            if not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                sums[series.partition("{")[0]] += float(value)
        return cls(
            cpu_seconds=cpu_seconds(family_of(server)),
            images=sums["service_batch_size_count"],
            decode_seconds=sums["service_decode_seconds_sum"],
            inference_seconds=sums["service_inference_seconds_sum"],
        )

    def since(self, before: Spent) -> str:
        """Return the microseconds per image since ``before``, as cells of a table's row."""
        cpu, images, decode, inference = (
            now - then for now, then in zip(astuple(self), astuple(before), strict=True)
        )
        parts = (cpu, decode, inference, cpu - decode - inference)
        return " | ".join(f"{1e6 * seconds / images:,.0f}" for seconds in parts)


def family_of(server: Server) -> list[psutil.Process]:
    """Return the service's processes, the supervisor first."""
    process = psutil.Process(server.process.pid)
    return [process, *process.children()]


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the user and system time of processes."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


# ---- measurements --------------------------------------------------------------------------------


class Bench:
    """The servers side by side, and the requests for them."""

    def __init__(
        self, server: Server, tutorial_port: int, ceiling_port: int, seconds: float
    ) -> None:
        self.server = server
        self.port = port_of(server)
        self.tutorial_port = tutorial_port
        self.ceiling_port = ceiling_port
        self.seconds = seconds
        self.images = golden.images()
        self.session = open_session()
        self.pngs = png_requests()
        generator = np.random.default_rng(0)
        self.photos = [photo(image, generator) for image in self.images[:24]]
        # The tutorial's app squashes a photo and may give another class, so any class is right.
        self.jpegs = [
            request("/predict", upload, "image/jpeg", b'"class_name":') for upload in self.photos
        ]

    async def compare(self, work: str, requests: list[Request], connections: int) -> Cell:
        """Measure in turn the tutorial's app, the service, the tutorial's app and the ceiling."""
        ports = self.tutorial_port, self.port, self.tutorial_port
        results = [await closed_loop(port, requests, connections, self.seconds) for port in ports]
        any_class = [Request(each.message, b'"class_name":') for each in requests]
        results.append(await closed_loop(self.ceiling_port, any_class, connections, self.seconds))
        check_all_answered(results)
        before, ours, after, ceiling = results
        return Cell(work, connections, ours, before, after, ceiling)

    async def profile(self, work: str, requests: list[Request]) -> str:
        """Measure the cost of an answer and of its parts; return a row of a table.

        It uses one connection: with more, a step's time includes its wait for a core.
        """
        before = Spent.of(self.server)
        await closed_loop(self.port, requests, 1, self.seconds)
        return f"| {work} | {Spent.of(self.server).since(before)} |"

    async def overload(self, capacity: float) -> list[str]:
        """Send small images at twice ``capacity``; return rows of a table."""
        result = await open_loop(self.port, self.pngs, 2 * capacity, 512, 2 * self.seconds)
        rejected = result.statuses[503] / result.duration_seconds
        return [
            f"| right | {result.rate:,.0f} ({result.rate / capacity:.0%} of {capacity:,.0f}) | "
            f"{result.percentile_ms(99):.0f} |",
            f"| rejected with 503 | {rejected:,.0f} | {result.rejection_percentile_ms(99):.0f} |",
            f"| wrong, or another status | {result.wrong} in all | |",
        ]

    def batches(self) -> list[str]:
        """Compare batches in one request with ONNX Runtime alone; return rows of a table."""
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
        """Time the parts of the work in this process, on one thread; return rows of a table."""
        png, jpeg, generator = encode(self.images[0]), self.photos[0], np.random.default_rng(0)

        def infer(size: int) -> Callable[[], object]:
            return lambda: self.session.run(["probabilities"], {"image": self.images[:size]})

        def decode(upload: bytes) -> Callable[[], object]:
            return lambda: read_image(upload, GREY, 10**8)

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
    """Open the model on one thread, as the service does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        bundle / "model.onnx", options, providers=["CPUExecutionProvider"]
    )


def run_in_batches(session: onnxruntime.InferenceSession, tensor: NDArray[np.uint8]) -> None:
    """Run the model on a tensor, 32 images at a time."""
    for start in range(0, len(tensor), 32):
        session.run(["probabilities"], {"image": tensor[start : start + 32]})


def interleave(*calls: Callable[[], object], rounds: int = 7) -> list[float]:
    """Return the median seconds of each call. The calls take turns, so noise affects all."""
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
    """Measure the service with 1, 2 and 4 workers of one thread; return rows of a table."""
    rows = []
    for count in (1, 2, 4):
        with serving(**SERVED | {"workers": count, "threads": 1}) as server:
            results = [
                await closed_loop(port_of(server), requests, CONNECTIONS[-1], seconds)
                for requests in (pngs, jpegs)
            ]
        check_all_answered(results)
        rows.append(f"| {count} | {' | '.join(f'{result.rate:,.0f}' for result in results)} |")
    return rows


def check_all_answered(results: Iterable[Result]) -> None:
    """Raise AssertionError unless every answer was a 200."""
    for result in results:
        assert result.statuses.keys() == {200}, result.statuses


def start_and_idle() -> list[str]:
    """Start the service with its defaults and leave it idle; return rows of a table."""
    importing = min(timed([sys.executable, "-c", "import service.server.worker"]) for _ in range(3))
    nothing = min(timed([sys.executable, "-c", "pass"]) for _ in range(3))
    bare = resident_mib([sys.executable, "-c", "import onnxruntime; print(flush=True); input()"])
    started = time.perf_counter()
    with serving(**SERVED) as server:
        ready = time.perf_counter() - started
        family = family_of(server)
        time.sleep(2)
        before = cpu_seconds(family)
        time.sleep(10)
        share = (cpu_seconds(family) - before) / 10
        sizes = [member.memory_info().rss / 2**20 for member in family]
    rows = [
        f"| from the command to ready | {ready:.1f} s |",
        f"| `import service.server.worker` alone | {importing - nothing:.2f} s |",
        f"| CPU when idle, all processes | {share:.1%} of a core |",
        f"| memory of an idle worker with `convnet-tf1` | {max(sizes):.0f} MiB |",
        f"| memory of Python with onnxruntime alone | {bare:.0f} MiB |",
        f"| processes | {len(family)} |",
    ]
    return rows + [f"| memory of the supervisor | {sizes[0]:.0f} MiB |"] * (len(family) > 1)


def timed(command: list[str]) -> float:
    """Return the seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    return time.perf_counter() - started


def resident_mib(command: list[str]) -> float:
    """Return the resident memory of a process that prints a line and then waits for input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        size: float = psutil.Process(process.pid).memory_info().rss / 2**20
        process.communicate(b"\n")
    return size


SERVED = {"device": "cpu", "models": BUNDLE, "workers": count_workers(Settings(device="cpu"))}


async def measure(seconds: float) -> dict[str, str]:
    """Measure everything; return the parts of the page by name."""
    with (
        serving(**SERVED) as server,
        app("tutorial", MODEL=str(BUNDLE / "model.onnx")) as tutorial,
        app("ceiling") as ceiling,
    ):
        bench = Bench(server, tutorial, ceiling, seconds)
        cells = [await bench.compare("28x28 PNG", bench.pngs, count) for count in CONNECTIONS]
        cells += [await bench.compare("800x600 JPEG", bench.jpegs, count) for count in CONNECTIONS]
        overload = await bench.overload(cells[2].ours.rate)
        await asyncio.sleep(1)  # until the service has answered the overload's last requests
        works = {"28x28 PNG": bench.pngs, "800x600 JPEG": bench.jpegs}
        profile = [await bench.profile(work, requests) for work, requests in works.items()]
        batches = bench.batches()
        ceilings = bench.ceilings()
        with serving(device="cpu", workers=SERVED["workers"]) as default:
            bench.port = port_of(default)
            for work, requests in (
                ("28x28 PNG, `resnet-8`", png_requests(DEFAULT)),
                ("800x600 JPEG, `garments`", bench.jpegs),
            ):
                cells += [await bench.compare(work, requests, count) for count in CONNECTIONS]
    parts = {
        "cells": [str(cell) for cell in cells],
        "overload": overload,
        "profile": profile,
        "workers": await workers(seconds, bench.pngs, bench.jpegs),
        "batches": batches,
        "ceilings": ceilings,
        "start": start_and_idle(),
    }
    return {name: "\n".join(rows) for name, rows in parts.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="duration of each measurement")
    parser.add_argument(
        "--output", type=Path, help="the document to update; without it, print only"
    )
    arguments = parser.parse_args()
    parts = uvloop.run(measure(arguments.seconds))
    parts["machine"] = (
        f"Measured on {datetime.now(UTC).date()} with {os.cpu_count()} cores of "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"onnxruntime {onnxruntime.__version__}. The load generator shared the cores with the "
        "servers."
    )
    for name, text in parts.items():
        print(f"{name}\n{text}\n")
        if arguments.output:
            replace_part(arguments.output, name, text)


def replace_part(path: Path, name: str, text: str) -> None:
    """Replace the text between a part's two marks in a document.

    Raises:
        ValueError: The document lacks the marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
