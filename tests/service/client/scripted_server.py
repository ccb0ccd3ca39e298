"""An HTTP server for tests: each upload contains the script of its own answers."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLASSES = ("T-shirt/top", "Trouser", "Bag")


class ScriptedServer(ThreadingHTTPServer):
    """Reads a script from each upload's bytes and performs one step per request.

    Further requests repeat the last step. ``503 after 1; 200 2`` answers a 503 with
    ``Retry-After: 1``, then class 2. The steps:
    ``200 CLASS_ID``, ``STATUS``, ``STATUS after VALUE`` (with Retry-After), ``STATUS to URL`` (a
    redirect), ``STATUS as TYPE`` (a problem of this type), ``garbage`` (a 200 without a
    prediction), ``infinite`` (a 200 whose class id is Infinity), ``page`` (a 500 with HTML),
    ``drop`` (closes without an answer), ``hang`` (never answers). The script of a batch is its
    first file, and a batch is answered with one prediction. With ``explain=true`` the picture that
    the model saw is the class id's text.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ScriptedHandler)
        self.arrivals: dict[bytes, list[float]] = defaultdict(list)  # time.monotonic() by body
        self.headers: list[Any] = []
        self.paths: list[str] = []  # with their queries
        self.in_flight = self.most_in_flight = 0
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
        """Perform the next step of the script in the body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/predict/batch"):
            body = body.split(b"\r\n")[4]  # after the boundary, two headers and an empty line
        with self.server.lock:
            arrivals = self.server.arrivals[body]
            arrivals.append(time.monotonic())
            steps = body.decode().split(";")
            step = steps[min(len(arrivals), len(steps)) - 1].split(maxsplit=2)
            self.server.headers.append(self.headers)
            self.server.paths.append(self.path)
            self.server.in_flight += 1
            self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        time.sleep(0.01)  # lets concurrent requests overlap
        with self.server.lock:
            self.server.in_flight -= 1
        self.follow(step)

    def follow(self, step: list[str]) -> None:
        """Perform one step of a script."""
        if step[0] == "hang":
            self.server.stopping.wait()
        if step[0] in ("hang", "drop"):
            self.close_connection = True
        elif step[0] == "garbage":
            self.answer(200, b'{"hello": "world"}')
        elif step[0] == "infinite":
            self.answer(200, b'{"class_id": Infinity, "hello": "world"}')
        elif step[0] == "page":
            self.answer(500, b"<h1>Oh no</h1>")
        elif step[0] == "200":
            answer = prediction(int(step[1]))
            if "explain=true" in self.path:
                answer["explanation"] = {"image": b64encode(step[1].encode()).decode()}
            is_batch = self.path.startswith("/predict/batch")
            self.answer(200, json.dumps({"predictions": [answer]} if is_batch else answer).encode())
        else:
            status, word, value = (*step, "", "")[:3]
            body = (
                {} if word == "to" else problem(status) | ({"type": value} if word == "as" else {})
            )
            header = {"after": "Retry-After", "to": "Location"}.get(word)
            self.answer(int(status), json.dumps(body).encode(), {header: value} if header else {})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send one response."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Log nothing."""


def prediction(class_id: int) -> dict[str, Any]:
    """Return the body of a 200."""
    return {
        "class_id": class_id,
        "class_name": CLASSES[class_id],
        "probability": 0.9,
        "probabilities": {name: 0.9 if name == CLASSES[class_id] else 0.05 for name in CLASSES},
        "model": {"name": "scripted", "version": "7"},
    }


def problem(status: str) -> dict[str, Any]:
    """Return the body of an error."""
    return {
        "type": f"/problems/{status}",
        "title": f"Title {status}",
        "status": int(status),
        "detail": "the\ndetail",
        "request_id": "r-1",
    }


@contextmanager
def running() -> Iterator[ScriptedServer]:
    """Run a ScriptedServer until the block ends."""
    with ScriptedServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


def unused_url() -> str:
    """Return a URL without a listener."""
    with ScriptedServer() as server:
        return server.url
