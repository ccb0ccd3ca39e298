"""The limits on each connection (sizes, counts and times), on real sockets."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from service.server.protocol import MAX_HEAD_BYTES, MAX_HEADERS, LimitedProtocol
from tests.e2e.server import SLOW_IMAGE, Server, serving
from tests.service.images import fault

START = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
UPLOAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
TEXT_UPLOAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
UPGRADE = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
)
CHUNKED = UPLOAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server with the shipped model."""
    with serving(device="cpu", keep_alive_seconds=1) as running:
        yield running


def exchange(server: Server, *parts: bytes) -> bytes:
    """Send ``parts`` one by one; read until the server closes the connection.

    If the server does not close it in time, TimeoutError is raised.
    """
    with server.connect() as client:
        received = b""
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(0.01)
            while piece := client.recv(65536):
                received += piece
        except ConnectionError:
            pass  # the server closed the connection while the client was still sending
        return received


@pytest.mark.parametrize(
    "parts",
    [
        [START, *[b"x" * 65536] * 2],
        [b"GET /", *[b"x" * 65536] * 2],
        [START, *[b"A: " + b"x" * 30_000 + b"\r\n"] * 4],
        [START + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n"],
        [START + b"A: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n"],
    ],
    ids=["one long header", "long path", "long headers", "many headers", "all at once"],
)
def test_large_head_is_rejected(server: Server, parts: list[bytes]) -> None:
    """A request line or headers that are too large get 431, however they are split.

    The connection is then closed.
    """
    answer = exchange(server, *parts)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431")
    assert json.loads(body)["type"].endswith(":head-too-large")
    assert server.get("/health").status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"BREW /predict HTTP/1.1\r\n\r\n",
    ],
)
def test_malformed_request_gets_a_problem_body(server: Server, request_bytes: bytes) -> None:
    """Malformed HTTP gets 400 with a problem body, and the connection is closed."""
    head, _, body = exchange(server, request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in head
    assert json.loads(body)["type"].endswith(":malformed-request")


def test_requests_of_one_connection_are_counted_separately(server: Server) -> None:
    """Each head is limited separately; all heads of one connection together may be larger."""
    request = START + b"A: " + b"x" * 20_000 + b"\r\n\r\n"
    answer = exchange(server, *[request] * 20)
    assert answer.count(b"HTTP/1.1 200") == 20


def test_large_upload_is_no_large_head(server: Server) -> None:
    """The limit on a head does not limit a body, sent together with its head or after it."""
    photo = fault("photo.png") + bytes(500_000)
    head = UPLOAD + b"Content-Length: %d\r\n\r\n" % len(photo)
    assert b"HTTP/1.1 200" in exchange(server, head + photo, head, photo)


def test_client_that_hangs_up_early_leaves_no_traceback(server: Server) -> None:
    """A connection that breaks while many answers are due causes no traceback in the log."""
    for _ in range(5):
        client = server.connect()
        client.sendall((START + b"\r\n") * 500)
        client.close()
    assert server.get("/health").status_code == 200
    time.sleep(0.5)
    assert "Traceback" not in server.read_log()


def test_client_that_half_closes_gets_its_answers(server: Server) -> None:
    """A client that stops sending (half-closes) still gets the answers that are finished."""
    for request, status in (
        (START + b"\r\n", b"200"),
        (TEXT_UPLOAD + b"Content-Length: 1\r\n\r\nx", b"415"),
    ):
        for _ in range(10):
            with server.connect() as client:
                client.sendall(request)
                time.sleep(0.01)  # the answer is finished, but perhaps not yet sent
                client.shutdown(socket.SHUT_WR)
                assert client.recv(65536).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("content", [fault("photo.png"), SLOW_IMAGE], ids=["quick", "slow"])
def test_client_that_half_closes_at_once_gets_its_answer(content: bytes) -> None:
    """An upload that ends with the client's half of the connection is answered like any other."""
    with serving(device="cpu", max_upload_bytes=2 * len(SLOW_IMAGE)) as running:
        usual = running.predict(content).json()
        with running.connect() as client:
            client.sendall(UPLOAD + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            client.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(client)
            response.begin()
            assert (response.status, json.loads(response.read())) == (200, usual)
            assert client.recv(1) == b""  # and the service closes its half


def test_pipelined_requests_before_a_half_close_are_answered(server: Server) -> None:
    """All requests that arrived in full are answered, in order.

    If the last one was cut, the connection closes, and some answers may be lost.
    """
    photo = fault("photo.png")
    upload = UPLOAD + b"Content-Length: %d\r\n\r\n" % len(photo) + photo
    expected = [b"200", b"200", b"415", b"200"]
    for rest in (b"", b"GET /he", upload[:-1]):
        with server.connect() as client:
            client.sendall(upload + START + b"\r\n" + TEXT_UPLOAD + b"Content-Length: 0\r\n\r\n")
            client.sendall(upload + rest)
            client.shutdown(socket.SHUT_WR)
            received = b""
            while piece := client.recv(65536):
                received += piece
        statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
        assert statuses == (expected[: len(statuses)] if rest else expected)


def test_pipelined_requests_are_limited(server: Server) -> None:
    """A few requests sent together are all answered; of thousands, only some are."""
    few = (START + b"\r\n") * 8 + START + b"Connection: close\r\n\r\n"
    assert exchange(server, few).count(b"HTTP/1.1 200") == 9
    assert exchange(server, (START + b"\r\n") * 5000).count(b"HTTP/1.1 200") < 5000
    assert server.get("/health/live").status_code == 200


@pytest.mark.parametrize("is_chunked", [False, True], ids=["of known length", "in chunks"])
@pytest.mark.parametrize("is_split", [False, True], ids=["in one piece", "in two"])
def test_offer_to_upgrade_is_ignored(server: Server, is_split: bool, is_chunked: bool) -> None:
    """A request that offers another protocol is answered as usual, and so are later requests."""
    image = fault("photo.png")
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(image)
    head = UPLOAD + UPGRADE + framing + b"\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(image), image) if is_chunked else image
    rest = body + START + UPGRADE + b"\r\n" + START + b"Connection: close\r\n\r\n"
    answer = exchange(server, head, rest) if is_split else exchange(server, head + rest)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert b'"class_name"' in answer


def test_body_after_an_offer_to_upgrade_is_no_request(server: Server) -> None:
    """After an offer to upgrade, the body is not parsed as a request.

    A proxy in front of the service would not have checked such a request.
    """
    body = START + b"X-Request-ID: smuggled\r\n\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    answer = exchange(server, UPLOAD + length + UPGRADE + b"\r\n", body)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 422")
    assert "smuggled" not in server.read_log()


def test_trailer_without_end_is_rejected(server: Server) -> None:
    """The trailer after a body in chunks has the same size limit as a head."""
    for trailer in (b"X: " + b"x" * 65536, b"X: " + b"x" * 30_000 + b"\r\n"):
        answer = exchange(server, CHUNKED + b"1\r\nx\r\n0\r\n", *[trailer] * 4)
        assert answer.startswith(b"HTTP/1.1 431")


def test_trailer_adds_no_headers(server: Server) -> None:
    """A trailer cannot set a header, such as an API key or a request id."""
    answer = exchange(server, CHUNKED + b"1\r\nx\r\n0\r\nX-Request-ID: late\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 422")
    assert b"late" not in answer


def test_body_in_tiny_chunks_is_rejected(server: Server) -> None:
    """A body in thousands of tiny chunks is rejected; thousands of larger chunks are accepted."""
    answer = exchange(server, CHUNKED + b"1\r\nx\r\n" * 5000)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"chunks of 16 bytes or fewer" in answer
    photo = fault("photo.png") + bytes(400_000)
    chunks = (photo[start : start + 64] for start in range(0, len(photo), 64))
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    assert exchange(server, CHUNKED + body + b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_empty_line_does_not_keep_a_connection(server: Server) -> None:
    """A client that sends only an empty line after an answer is disconnected like an idle one."""
    started = time.monotonic()
    assert exchange(server, START + b"\r\n", b"\r\n").startswith(b"HTTP/1.1 200")
    assert time.monotonic() - started < LimitedProtocol.head_timeout_seconds + 5


@pytest.mark.parametrize("chunked", [False, True])
def test_rejection_reaches_a_client_that_sends_on(server: Server, chunked: bool) -> None:
    """A client that first sends its whole body and then reads gets 413, not a reset connection."""
    body = bytes(20_000_000)
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
    headers = {"Content-Type": "image/png", "Connection": "close"}
    connection.request(
        "POST", "/predict", iter([body]) if chunked else body, headers, encode_chunked=chunked
    )
    assert connection.getresponse().status == 413
    connection.close()
