"""The batch client, against a scripted HTTP server and the real service; its command line runs as real processes."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from service.app import create_app
from service.client import (
    AsyncClient,
    Client,
    ClientError,
    NoAnswerError,
    Prediction,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
    UnreadableFileError,
    UsageError,
)
from service.client.client import Row, RowFile, find_images, read_rows
from service.settings import Settings

ROOT = Path(__file__).parents[3]
CLASSES = ("T-shirt/top", "Trouser", "Bag")


class ScriptedServer(ThreadingHTTPServer):
    """Answers an "image" as its bytes say: ``503 after 1; 200 2`` is a 503 with Retry-After, then class 2 for ever.

    The words: ``200 CLASS_ID``, ``STATUS``, ``STATUS after VALUE``, ``garbage`` (a 200), ``page`` (a 500 of HTML),
    ``drop`` (close without an answer), ``hang`` (no answer at all).
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.arrivals: dict[bytes, list[float]] = defaultdict(list)  # monotonic seconds by body
        self.headers: list[Any] = []
        self.at_once = self.most_at_once = 0
        self.lock, self.stopping = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class ScriptedHandler(BaseHTTPRequestHandler):
    """One connection of the ScriptedServer."""

    server: ScriptedServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Follow the script that the body is."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            arrivals = self.server.arrivals[body]
            arrivals.append(time.monotonic())
            steps = body.decode().split(";")
            step = steps[min(len(arrivals), len(steps)) - 1].split(maxsplit=2)
            self.server.headers.append(self.headers)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        time.sleep(0.01)  # so that requests overlap where the client lets them
        with self.server.lock:
            self.server.at_once -= 1
        self.follow(step)

    def follow(self, step: list[str]) -> None:
        """Answer, or fail, as one step says."""
        if step[0] == "hang":
            self.server.stopping.wait()
        if step[0] in ("hang", "drop"):
            self.close_connection = True
        elif step[0] == "garbage":
            self.answer(200, b'{"hello": "world"}')
        elif step[0] == "page":
            self.answer(500, b"<h1>Oh no</h1>")
        elif step[0] == "200":
            class_id = int(step[1])
            probabilities = {name: 0.9 if i == class_id else 0.05 for i, name in enumerate(CLASSES)}
            answer = {"class_id": class_id, "class_name": CLASSES[class_id], "probability": 0.9}
            model = {"name": "scripted", "version": "7"}
            self.answer(
                200, json.dumps(answer | {"probabilities": probabilities, "model": model}).encode()
            )
        else:
            problem = {
                "type": f"/problems/{step[0]}",
                "title": f"Title {step[0]}",
                "status": int(step[0]),
            }
            problem |= {"detail": "the\ndetail", "request_id": "r-1"}
            self.answer(
                int(step[0]),
                json.dumps(problem).encode(),
                retry_after=step[2] if len(step) > 1 else None,
            )

    def answer(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        """Send one response."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep quiet."""


@contextmanager
def running() -> Iterator[ScriptedServer]:
    """Serve scripts until the block ends."""
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server."""
    with running() as server:
        yield server


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of scripts for classes 0 to 2, one of them in a subfolder, beside a file that is no image."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for name, script in {"a.png": "200 0", "b.JPG": "200 1", "deeper/c.webp": "200 2"}.items():
        (folder / name).write_text(script)
    (folder / "notes.txt").write_text("422")
    (folder / "._a.png").write_text("422")
    return folder


def command(*arguments: object) -> list[str]:
    """Return the command line of the client."""
    return [sys.executable, "-m", "service.client", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the client's command line to its end."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def read(output: Path) -> dict[str, dict[str, Any]]:
    """Read an output as any other program would, by file name; each image must be there once."""
    with output.open(newline="") as file:
        rows = (
            list(csv.DictReader(file))
            if output.suffix == ".csv"
            else [json.loads(line) for line in file]
        )
    by_name = {Path(row["path"]).name: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


def unused_url() -> str:
    """Return a URL on which nobody listens."""
    with ScriptedServer() as server:
        return server.url


class TestClients:
    """The library classes."""

    def test_bytes_and_paths_give_a_prediction(self, server: ScriptedServer, images: Path) -> None:
        """Bytes, Path and str are classified alike, sync and async, with all that the server says."""
        expected = Prediction(
            0,
            CLASSES[0],
            0.9,
            {CLASSES[0]: 0.9, CLASSES[1]: 0.05, CLASSES[2]: 0.05},
            "scripted",
            "7",
        )
        inputs = (b"200 0", images / "a.png", str(images / "a.png"))

        async def predict_all() -> list[Prediction]:
            async with AsyncClient(server.url) as client:
                return [await client.predict(image) for image in inputs]

        with Client(server.url + "/predict") as client:  # the endpoint's own URL is understood too
            assert [client.predict(image) for image in inputs] == [expected] * 3
        assert asyncio.run(predict_all()) == [expected] * 3

    def test_api_key_is_a_bearer_token(self, server: ScriptedServer) -> None:
        """The key is sent as a bearer token, kept out of the repr, and without one no such header is sent."""
        with Client(server.url, "secret") as client:
            client.predict(b"200 0")
            assert "secret" not in repr(client)
        with Client(server.url) as client:
            client.predict(b"200 0")
        assert [headers["Authorization"] for headers in server.headers] == ["Bearer secret", None]

    @pytest.mark.parametrize("first", ["429", "502", "503", "504", "drop"])
    def test_passing_failures_are_tried_again(self, server: ScriptedServer, first: str) -> None:
        """An overload, a gateway's error and a broken connection are tried again, sync and async."""

        async def predict() -> Prediction:
            async with AsyncClient(server.url, backoff_s=0.01) as client:
                return await client.predict(f"{first};{first};200 1".encode())

        with Client(server.url, backoff_s=0.01) as client:
            assert client.predict(f"{first};200 2".encode()).class_id == 2
        assert asyncio.run(predict()).class_id == 1
        assert sorted(map(len, server.arrivals.values())) == [2, 3]

    @pytest.mark.parametrize("asked", ["1", "date"])
    def test_retry_after_is_honoured(self, server: ScriptedServer, asked: str) -> None:
        """The second request comes no sooner than Retry-After says, in seconds or as a date."""
        moment = int(time.time()) + 2
        body = f"503 after {formatdate(moment, usegmt=True) if asked == 'date' else asked};200 1".encode()
        with Client(server.url, backoff_s=0.001) as client:
            client.predict(body)
        first, second = server.arrivals[body]
        if asked == "date":
            assert time.time() >= moment
        else:
            assert second - first >= 1.0

    def test_an_endless_retry_after_is_an_error(self, server: ScriptedServer) -> None:
        """A server that asks for a day is neither waited for nor asked sooner."""
        with Client(server.url) as client, pytest.raises(ProblemError):
            client.predict(b"503 after 86400")
        assert len(server.arrivals[b"503 after 86400"]) == 1

    @pytest.mark.parametrize(
        "asked", ["soon", "Wed, 21 Oct 2015 07:28:00 GMT", "-1", "Wed, 21 Oct 2015 07:28:00 -0000"]
    )
    def test_a_senseless_retry_after_is_survived(self, server: ScriptedServer, asked: str) -> None:
        """A Retry-After that is no number or lies in the past leads to another attempt."""
        with Client(server.url, backoff_s=0.001) as client:
            assert client.predict(f"429 after {asked};200 1".encode()).class_id == 1

    def test_it_gives_up(self, server: ScriptedServer) -> None:
        """After ``retries`` further attempts the last error is raised, with the server's problem body."""
        with (
            Client(server.url, retries=3, backoff_s=0.001) as client,
            pytest.raises(ProblemError) as caught,
        ):
            client.predict(b"503")
        assert len(server.arrivals[b"503"]) == 4
        error = caught.value
        assert (error.status, error.problem_type, error.request_id) == (503, "/problems/503", "r-1")
        assert (error.problem["detail"], error.detail) == ("the\ndetail", "the detail")

    @pytest.mark.parametrize("script", ["400", "401", "413", "415", "422", "500", "page"])
    def test_lasting_failures_are_not_tried_again(
        self, server: ScriptedServer, script: str
    ) -> None:
        """What another attempt cannot mend is raised at once, a page of a proxy too."""
        with Client(server.url) as client, pytest.raises(ProblemError) as caught:
            client.predict(script.encode())
        assert len(server.arrivals[script.encode()]) == 1
        assert caught.value.title == (
            "HTTP 500 Internal Server Error" if script == "page" else f"Title {script}"
        )

    def test_other_faults_have_their_own_errors(
        self, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """Garbage, silence, no listener, no file and no URL are told apart, all of them a ClientError."""
        with Client(server.url, retries=0, timeout_s=0.2) as client:
            with pytest.raises(UnexpectedAnswerError, match="hello"):
                client.predict(b"garbage")
            with pytest.raises(NoAnswerError, match="ReadTimeout"):
                client.predict(b"hang")
            with pytest.raises(UnreadableFileError, match="absent"):
                client.predict(tmp_path / "absent.png")
        with (
            Client(unused_url(), retries=1, backoff_s=0.001) as client,
            pytest.raises(UnreachableError),
        ):
            client.predict(b"200 0")
        for url in ("localhost:8000", "", "ftp://host", "http://", "http://host:port"):
            with pytest.raises(UsageError):
                Client(url)
        assert issubclass(UnexpectedAnswerError, ClientError)
        assert issubclass(UsageError, ClientError)


class TestFindImages:
    """Which files the arguments mean."""

    def test_files_folders_and_globs(self, images: Path) -> None:
        """Folders are searched for image suffixes, files and globs taken as named, and nothing is taken twice."""
        inside = [images / "a.png", images / "b.JPG", images / "deeper/c.webp"]
        assert find_images([str(images)]) == inside
        assert find_images([f"{images}/*.png", str(images / "a.png"), str(images)]) == inside
        assert find_images([f"{images}/**/*.webp"]) == [images / "deeper/c.webp"]
        assert find_images([str(images / "notes.txt")]) == [images / "notes.txt"]

    def test_a_name_that_looks_like_a_glob_is_a_file(self, tmp_path: Path) -> None:
        """A file that exists is taken before its name is read as a pattern."""
        (tmp_path / "shoe[1].png").touch()
        assert find_images([str(tmp_path / "shoe[1].png")]) == [tmp_path / "shoe[1].png"]

    def test_what_names_nothing_is_an_error(self, tmp_path: Path) -> None:
        """A missing file, an empty folder and a glob without a match are named."""
        (tmp_path / "empty").mkdir()
        for name in ("missing.png", "empty", "*.png"):
            with pytest.raises(UsageError) as caught:
                find_images([str(tmp_path / name)])
            assert str(tmp_path / name) in str(caught.value)


awkward = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\r\n",\udc80'), min_size=1
)
answered = st.builds(
    Row,
    awkward,
    st.integers(0, 9),
    awkward,
    st.floats(0, 1),
    st.just({"T-shirt/top": 0.5}),
    awkward,
)
failed = st.builds(
    lambda path, text: Row(path, error_type=text, error_title=text, error_detail=text),
    awkward,
    awkward,
)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@given(rows=st.lists(answered | failed, min_size=1, max_size=4), cut=st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_a_file_cut_anywhere_keeps_its_whole_rows(suffix: str, rows: list[Row], cut: float) -> None:
    """Whatever the texts, a whole file reads back as written, and a cut one as the rows before the cut."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows" + suffix)
        ends = []
        file = RowFile(path)
        for row in rows:
            file.append(row)
            ends.append(path.stat().st_size)
        file.close()
        assert read_rows(path) == rows
        length = int(cut * ends[-1])
        os.truncate(path, length)
        assert read_rows(path) == [
            row for row, end in zip(rows, ends, strict=True) if end <= length
        ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
class TestCommandLine:
    """The command line, in both formats."""

    def test_all_answered(
        self, server: ScriptedServer, images: Path, tmp_path: Path, suffix: str
    ) -> None:
        """Every image has one row with all probabilities; the summary counts classes; the exit code is 0."""
        output = tmp_path / f"results{suffix}"
        done = run(images, "--url", server.url, "--output", output)
        assert done.returncode == 0, done.stderr
        rows = read(output)
        assert {name: row["class_name"] for name, row in rows.items()} == dict(
            zip(("a.png", "b.JPG", "c.webp"), CLASSES, strict=True)
        )
        bag = rows["c.webp"]
        probabilities = (
            json.loads(bag["probabilities"]) if suffix == ".csv" else bag["probabilities"]
        )
        assert probabilities == {CLASSES[0]: 0.05, CLASSES[1]: 0.05, CLASSES[2]: 0.9}
        assert (int(bag["class_id"]), float(bag["probability"]), bag["model"]) == (
            2,
            0.9,
            "scripted/7",
        )
        assert "3 images: 3 classified, 0 failed" in done.stdout
        assert "accuracy" not in done.stdout
        assert all(name in done.stdout for name in CLASSES)
        assert "3/3" in done.stderr
        assert "images/s" in done.stderr

    def test_failures_are_rows(
        self, server: ScriptedServer, images: Path, tmp_path: Path, suffix: str
    ) -> None:
        """Refused, garbled and unanswered images are rows with the problem, the others are answered; exit code 1."""
        for name in ("garbage", "page", "drop"):
            (images / f"{name}.png").write_text(name)
        output = tmp_path / f"results{suffix}"
        done = run(
            images, images / "notes.txt", "--url", server.url, "--output", output, "--retries", 0
        )
        assert done.returncode == 1, done.stderr
        rows = read(output)
        assert len(rows) == 7
        assert {name: row["error_type"] for name, row in rows.items() if row["error_type"]} == {
            "garbage.png": "client:unexpected-answer",
            "page.png": "about:blank",
            "drop.png": "client:no-answer",
            "notes.txt": "/problems/422",
        }
        refused = rows["notes.txt"]
        problem = refused["error_title"], refused["error_detail"], refused["request_id"]
        assert problem == ("Title 422", "the detail", "r-1")
        assert "7 images: 3 classified, 4 failed" in done.stdout
        assert "1 x Title 422" in done.stdout

    def test_resume_after_a_kill(
        self, server: ScriptedServer, images: Path, tmp_path: Path, suffix: str
    ) -> None:
        """After a kill that cut the last line, the answered image is skipped, the failed and the cut are done again."""
        (images / "busy.png").write_text("422;200 0")
        output = tmp_path / f"results{suffix}"
        options = images, "--url", server.url, "--output", output, "--concurrency", 1
        assert run(*options).returncode == 1
        output.write_bytes(
            output.read_bytes()[:-9]
        )  # cuts into the row of deeper/c.webp, the last one
        done = run(*options, "--resume")
        assert done.returncode == 0, done.stderr
        assert {name: row["class_id"] for name, row in read(output).items()} == (
            {
                name: "012"["abc".index(name[0])] if name != "busy.png" else "0"
                for name in read(output)
            }
            if suffix == ".csv"
            else {"a.png": 0, "b.JPG": 1, "busy.png": 0, "c.webp": 2}
        )
        assert {body: len(times) for body, times in server.arrivals.items()} == {
            b"200 0": 1,
            b"200 1": 1,
            b"422;200 0": 2,
            b"200 2": 2,
        }
        assert "4 images: 4 classified, 0 failed" in done.stdout
        again = run(*options, "--resume")  # nothing is left to do
        assert again.returncode == 0, again.stderr
        assert len(server.headers) == 6


def test_interrupt_keeps_the_rows(server: ScriptedServer, images: Path, tmp_path: Path) -> None:
    """Ctrl-C ends with 130 and a summary; the rows until then are whole and --resume goes on from them."""
    for number in range(4):
        (images / f"z{number}.png").write_text("hang;200 1" + " " * number)
    output = tmp_path / "results.csv"
    options = images, "--url", server.url, "--output", output
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background has it ignored, as its children
    with subprocess.Popen(
        command(*options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while len(server.arrivals) < 7 or len(read_rows(output)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert "3 images: 3 classified" in stdout
    assert set(read(output)) == {"a.png", "b.JPG", "c.webp"}
    done = run(*options, "--resume")
    assert done.returncode == 0, done.stderr
    assert len(read(output)) == 7


def test_accuracy_comes_from_folders(server: ScriptedServer, tmp_path: Path) -> None:
    """A folder's name is the true class by name or id; images of other folders are classified but not counted."""
    truth = {"0/a": 0, "0/b": 1, "2/a": 2, "Bag/b": 2, "Bag/c": 0, "3/a": 0, "shoes/a": 0}
    for name, class_id in truth.items():
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"200 {class_id}")
    options = "--url", server.url, "--labels-from-folders"
    done = run(tmp_path / "set", *options, "--output", tmp_path / "results.csv")
    assert done.returncode == 0, done.stderr
    assert "accuracy: 60.00% (3 of 5 labelled and classified images)" in done.stdout
    done = run(tmp_path / "set/shoes", *options, "--output", tmp_path / "other.csv")
    assert "accuracy: unknown" in done.stdout


def test_concurrency_is_bounded(server: ScriptedServer, tmp_path: Path) -> None:
    """Never more than ``--concurrency`` requests are under way, and no row is lost or mixed up among them."""
    for number in range(60):
        (tmp_path / f"{number}.png").write_text(f"200 {number % 3}")
    done = run(
        tmp_path, "--url", server.url, "--output", tmp_path / "results.csv", "--concurrency", 3
    )
    assert done.returncode == 0, done.stderr
    assert 1 < server.most_at_once <= 3
    rows = read(tmp_path / "results.csv")
    assert [int(rows[f"{number}.png"]["class_id"]) for number in range(60)] == [
        number % 3 for number in range(60)
    ]


def test_an_existing_output_is_safe(server: ScriptedServer, images: Path, tmp_path: Path) -> None:
    """An output is replaced with --overwrite alone, and what is not an output of the client is never resumed."""
    output = tmp_path / "results.csv"
    options = images, "--url", server.url, "--output", output
    output.write_text("path,label\nboot.png,9\n")
    for flags in ([], ["--resume"], ["--resume", "--overwrite"]):
        done = run(*options, *flags)
        assert done.returncode == 2
        assert "--resume" in done.stderr or "cannot be resumed" in done.stderr
    assert output.read_text() == "path,label\nboot.png,9\n"
    assert not server.arrivals
    assert run(*options, "--overwrite").returncode == 0
    assert len(read(output)) == 3


def test_wrong_arguments_are_named(images: Path, tmp_path: Path) -> None:
    """A missing path, another suffix and a wrong URL end with 2 and a message, before any output is made."""
    for arguments, named in {
        (images / "missing.png", "--output", tmp_path / "r.csv"): str(images / "missing.png"),
        (images, "--output", tmp_path / "r.xlsx"): "r.xlsx",
        (images, "--output", tmp_path / "r.csv", "--url", "localhost:1"): "localhost:1",
    }.items():
        done = run(*arguments)
        assert (done.returncode, named in done.stderr) == (2, True), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_unreachable_server_ends_the_run(images: Path, tmp_path: Path) -> None:
    """Where nobody listens the run ends with 1 and names the URL, and the images are left to --resume."""
    url, output = unused_url(), tmp_path / "results.jsonl"
    done = run(images, "--url", url, "--output", output, "--retries", 0)
    assert done.returncode == 1
    assert url in done.stderr
    assert "Traceback" not in done.stderr
    with running() as server:
        assert run(images, "--url", server.url, "--output", output, "--resume").returncode == 0
    assert len(read(output)) == 3


def test_it_imports_nothing_of_the_server() -> None:
    """Importing the client loads no web framework, runtime or imaging, and no other module of the service."""
    listing = "import service.client, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.split(".")[0] == "service"}
    assert {".".join(name.split(".")[:2]) for name in ours} == {"service", "service.client"}
    assert not loaded & {
        "fastapi",
        "starlette",
        "uvicorn",
        "onnxruntime",
        "PIL",
        "numpy",
        "pydantic",
    }


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Without the extra's packages the message says what to install, with no traceback on the command line."""
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "__init__.py").touch()
    shutil.copytree(ROOT / "service/client", folder / "client")
    bare = [sys.executable, "-S", "-m", "service.client"]  # -S: without site-packages
    done = subprocess.run(bare, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "the client needs httpx, which is not installed: pip install 'fashion-classifier[client]'"
    )


def test_the_real_service_answers(tmp_path: Path) -> None:
    """The real service tells of an image all that the shipped model does, and of a text named .png its 422."""
    config = uvicorn.Config(create_app(Settings(device="cpu")), port=0, log_config=None)
    service = uvicorn.Server(config)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        while not service.started:
            time.sleep(0.02)
        port = service.servers[0].sockets[0].getsockname()[1]
        (tmp_path / "text.png").write_text("no image")
        sample = ROOT / "tests/data/fashion-mnist-sample"
        options = (
            "--url",
            f"http://127.0.0.1:{port}",
            "--output",
            tmp_path / "results.jsonl",
            "--explain",
        )
        done = run(f"{sample}/000*.png", tmp_path / "text.png", *options)
    finally:
        service.should_exit = True
        thread.join()
    assert done.returncode == 1, done.stderr
    rows = read(tmp_path / "results.jsonl")
    refused = rows.pop("text.png")
    assert refused["error_title"]
    assert refused["request_id"]
    assert len(rows) == 10
    assert all(
        sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3) for row in rows.values()
    )
    assert all(row["explanation"]["image"] for row in rows.values())
    assert all(isinstance(row["distance"], float) for row in rows.values())
    assert {row["in_distribution"] for row in rows.values()} <= {True, False}
