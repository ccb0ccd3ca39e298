"""The limits on uploads, on real sockets: slow, disconnected and too many clients."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import numpy as np
import pytest

from tests.e2e.server import SLOW_IMAGE, Server, serving, wait_until
from tests.service.images import encode, fault

PHOTO = fault("photo.png")
HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n"


@contextmanager
def upload_begun(server: Server, length: int, sent: bytes = b"") -> Iterator[socket.socket]:
    """Send the head of an upload of ``length`` bytes, and ``sent`` of its body."""
    with server.connect() as connection:
        connection.sendall(HEAD.format(length).encode() + sent)
        yield connection


def in_flight(server: Server) -> int:
    """Count the requests in flight, without the request to /metrics itself."""
    return server.metric("service_requests_in_flight") - 1


def receive_all(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_slow_body_times_out() -> None:
    """A client that stops in mid-body gets 408 and a closed connection; others are served."""
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
    """A request that is not answered in time gets 504, and the service answers the next request."""
    with (
        serving(device="cpu", request_timeout_seconds=0.5) as server,
        upload_begun(server, 1000) as connection,
    ):
        assert connection.recv(65536).startswith(b"HTTP/1.1 504")
        assert server.predict(PHOTO).status_code == 200


@pytest.mark.parametrize(
    "limit", [{"max_uploads_in_flight": 1}, {"max_bytes_in_flight": 1_000_000}]
)
def test_one_upload_too_many_is_rejected_at_once(limit: dict[str, int]) -> None:
    """At the limit on uploads or bytes in flight, uploads get 503; other routes still answer."""
    with serving(device="cpu", **limit) as server:
        with upload_begun(server, 1_000_000, b"abc"):
            wait_until(lambda: in_flight(server) == 1)
            rejected = server.predict(PHOTO)
            assert rejected.status_code == 503
            assert rejected.json()["type"].endswith(":overloaded")
            assert int(rejected.headers["retry-after"]) >= 1
            assert server.get("/health").status_code == 200
            assert server.metric('service_rejections_total{reason="overloaded"}') == 1
        wait_until(lambda: in_flight(server) == 0)
        assert server.predict(PHOTO).status_code == 200


def test_chunked_upload_reserves_the_largest_size() -> None:
    """A body that does not declare its length counts as the largest one; alone it is admitted."""
    limits = dict.fromkeys(("max_upload_bytes", "max_bytes_in_flight"), 100_000_000)
    with serving(device="cpu", **limits) as server, ThreadPoolExecutor() as threads:
        url, headers = server.url + "/predict", {"content-type": "image/png"}

        def send_in_chunks() -> int:
            return httpx2.post(url, content=iter([PHOTO]), headers=headers).status_code

        slow = threads.submit(server.predict, SLOW_IMAGE)
        wait_until(lambda: "service_requests_in_flight 2.0" in server.get("/metrics").text)
        assert send_in_chunks() == 503
        assert slow.result().status_code == 200
        assert send_in_chunks() == 200


def test_upload_of_a_client_that_has_gone_is_not_classified() -> None:
    """If clients disconnect while their images wait, none of these images is classified."""
    gone = 'service_requests_total{route="/predict",status="499"}'
    with (
        serving(device="cpu", threads=1, max_upload_bytes=100_000_000) as server,
        ThreadPoolExecutor() as threads,
    ):
        stayed = [threads.submit(server.predict, SLOW_IMAGE) for _ in range(6)]
        # When the first image is classified, the bodies of the others have arrived.
        wait_until(lambda: server.metric("service_batch_size_count") > 0)
        for _ in range(3):
            with upload_begun(server, len(PHOTO), PHOTO):
                pass
        wait_until(lambda: server.metric(gone) == 3)
        assert [future.result().status_code for future in stayed] == [200] * 6
        assert server.metric("service_batch_size_count") == 6


def test_client_that_leaves_within_its_body_costs_nothing() -> None:
    """An upload that the client breaks off logs no error and frees its place in flight."""
    with serving(device="cpu", max_uploads_in_flight=1) as server:
        for _ in range(3):
            with upload_begun(server, 1000, b"abc"):
                wait_until(lambda: in_flight(server) == 1)
            wait_until(lambda: in_flight(server) == 0)
        assert server.predict(PHOTO).status_code == 200
        assert "Traceback" not in server.read_log()


def test_draining_server_rejects_uploads_and_closes() -> None:
    """In the grace period after SIGTERM, new uploads get 503 and a closed connection."""
    with (
        serving(device="cpu", grace_seconds=3) as server,
        upload_begun(server, len(PHOTO), PHOTO[:100]) as connection,
    ):
        wait_until(lambda: in_flight(server) == 1)
        server.process.terminate()
        wait_until(lambda: server.get("/health").status_code == 503)
        assert server.get("/health").json()["status"] == "draining"
        rejected = server.predict(PHOTO)
        assert rejected.status_code == 503
        assert rejected.headers["connection"] == "close"
        connection.sendall(PHOTO[100:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(30) == 0


def test_shutdown_timeout_is_kept() -> None:
    """Uploads that still wait at the shutdown timeout get 503; the exit code is 0."""
    slow = encode(np.zeros((7000, 7000, 3), np.uint8))
    count = 40
    with (
        serving(device="cpu", shutdown_timeout_seconds=1, grace_seconds=0, threads=1) as server,
        ThreadPoolExecutor(count) as threads,
    ):
        uploads = [threads.submit(server.predict, slow) for _ in range(count)]
        wait_until(lambda: in_flight(server) + sum(upload.done() for upload in uploads) == count)
        # When the first upload is answered, the bodies of the others have arrived.
        wait_until(lambda: any(upload.done() for upload in uploads))
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert {upload.result().status_code for upload in uploads} == {200, 503}
        assert "Traceback" not in server.read_log()
