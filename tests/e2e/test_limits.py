"""What uploads may cost: slow, silent, vanishing and too many clients, on real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest

from service.server.protocol import READ_TIMEOUT_SECONDS
from tests.e2e.server import Server, serving
from tests.service.images import encode, fault, noise

PHOTO = fault("photo.png")
SLOW_IMAGE = encode(
    noise(6000, 6000), "PNG", compress_level=1
)  # a good part of a second of decoding


@contextmanager
def upload_begun(server: Server, length: int, sent: bytes = b"") -> Iterator[socket.socket]:
    """Send the head of an upload of ``length`` bytes and a part of its body."""
    address = urlsplit(server.url)
    with socket.create_connection(
        (str(address.hostname), address.port or 0), timeout=30
    ) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + sent)
        yield connection


def in_flight(server: Server) -> int:
    """Count the requests in flight, but for the one that asks."""
    return metric(server, "service_requests_in_flight") - 1


def metric(server: Server, name: str) -> int:
    """Read a metric; one that has not been counted yet is 0."""
    lines = [
        line for line in server.get("/metrics").text.splitlines() if line.startswith(name + " ")
    ]
    return int(float(lines[0].rsplit(" ", 1)[1])) if lines else 0


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def receive_all(connection: socket.socket) -> bytes:
    """Read until the other side closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_slow_body_is_given_up() -> None:
    """A client that stops in the middle of its body is answered 408 and its connection closed; others are served."""
    with (
        serving(device="cpu", upload_timeout_seconds=0.5) as server,
        upload_begun(server, 1000, b"abc") as connection,
    ):
        assert server.predict(PHOTO).status_code == 200
        answer = receive_all(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"urn:problem-type:fashion-classifier:upload-timeout" in answer
        assert b"connection: close" in answer.lower()


def test_deadline_is_kept() -> None:
    """A request that is not answered in time is answered 504, and what it waited for is given up."""
    with (
        serving(device="cpu", request_timeout_seconds=0.5) as server,
        upload_begun(server, 1000) as connection,
    ):
        assert connection.recv(65536).startswith(b"HTTP/1.1 504")
        assert server.predict(PHOTO).status_code == 200


@pytest.mark.parametrize(
    "limit", [{"max_uploads_in_flight": 1}, {"max_bytes_in_flight": 1_000_000}]
)
def test_one_upload_too_many_is_refused_at_once(limit: dict[str, int]) -> None:
    """Past the limit on uploads, or on their bytes, an upload gets 503 with Retry-After; health and metrics do not."""
    with serving(device="cpu", **limit) as server:
        with upload_begun(server, 1_000_000, b"abc"):
            wait_until(lambda: in_flight(server) == 1)
            refused = server.predict(PHOTO)
            assert refused.status_code == 503
            assert refused.json()["type"].endswith(":overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert server.get("/health").status_code == 200
            assert metric(server, 'service_rejections_total{reason="overloaded"}') == 1
        wait_until(lambda: in_flight(server) == 0)
        assert server.predict(PHOTO).status_code == 200


def test_chunked_upload_is_reserved_for_in_full() -> None:
    """A body that does not declare its length counts as the largest allowed."""
    with serving(device="cpu", max_bytes_in_flight=1_000_000, max_upload_bytes=1_000_001) as server:
        chunks = iter([PHOTO])
        refused = httpx2.post(
            server.url + "/predict", content=chunks, headers={"content-type": "image/png"}
        )
        assert refused.status_code == 503
        assert server.predict(PHOTO).status_code == 200


def test_upload_of_a_client_that_has_gone_is_not_run() -> None:
    """While the only thread is busy, clients leave that wait for it: their images are never classified."""
    gone = 'service_requests_total{route="/predict",status="499"}'
    with (
        serving(device="cpu", threads=1, max_upload_bytes=100_000_000) as server,
        ThreadPoolExecutor() as threads,
    ):
        stayed = [threads.submit(server.predict, SLOW_IMAGE) for _ in range(6)]
        wait_until(
            lambda: metric(server, "service_batch_size_count") > 0
        )  # by now the others' bodies are here
        for _ in range(3):
            with upload_begun(server, len(PHOTO), PHOTO):
                pass
        wait_until(lambda: metric(server, gone) == 3)
        assert [future.result().status_code for future in stayed] == [200] * 6
        assert metric(server, "service_batch_size_count") == 6


def test_client_that_leaves_in_the_middle_of_its_body_costs_nothing() -> None:
    """An upload that breaks off is no error of the service, and its place is free again."""
    with serving(device="cpu", max_uploads_in_flight=1) as server:
        for _ in range(3):
            with upload_begun(server, 1000, b"abc"):
                wait_until(lambda: in_flight(server) == 1)
            wait_until(lambda: in_flight(server) == 0)
        assert server.predict(PHOTO).status_code == 200
        server.log.seek(0)
        assert "Traceback" not in server.log.read()


def test_draining_server_refuses_and_closes() -> None:
    """After SIGTERM, in the grace period, /health says draining and an upload gets 503 and a closed connection."""
    with (
        serving(device="cpu", grace_seconds=3) as server,
        upload_begun(server, len(PHOTO), PHOTO[:100]) as connection,
    ):
        wait_until(lambda: in_flight(server) == 1)
        server.process.terminate()
        wait_until(lambda: server.get("/health").status_code == 503)
        assert server.get("/health").json()["status"] == "draining"
        refused = server.predict(PHOTO)
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        connection.sendall(PHOTO[100:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(30) == 0


def test_shutdown_timeout_is_kept() -> None:
    """Uploads that the only thread has not come to when the time is over are answered 503; the exit code is still 0."""
    slow = encode(np.zeros((7000, 7000, 3), np.uint8))
    count = 40
    with (
        serving(device="cpu", shutdown_timeout_seconds=1, grace_seconds=0, threads=1) as server,
        ThreadPoolExecutor(count) as threads,
    ):
        uploads = [threads.submit(server.predict, slow) for _ in range(count)]
        wait_until(lambda: in_flight(server) + sum(upload.done() for upload in uploads) == count)
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert {upload.result().status_code for upload in uploads} == {200, 503}
        server.log.seek(0)
        assert "Traceback" not in server.log.read()


def test_client_that_reads_no_answer_loses_its_place() -> None:
    """Answers that nobody reads are given up after a while, and their uploads are in flight no more."""
    pixels = bytes(1024 * 28 * 28)
    head = b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    upload = head + b"X-Shape: 1024,28,28\r\nContent-Length: %d\r\n\r\n" % len(pixels) + pixels
    with (
        serving(device="cpu") as server,
        ThreadPoolExecutor() as threads,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = urlsplit(server.url)
        client.connect((str(address.hostname), address.port or 0))
        sending = threads.submit(
            client.sendall, upload * 20
        )  # whose answers are more than the kernel keeps
        time.sleep(READ_TIMEOUT_SECONDS / 2)
        assert in_flight(server) == 1
        assert isinstance(sending.exception(timeout=30), ConnectionError)
        wait_until(lambda: in_flight(server) == 0)
