"""The limits on uploads, tested as ASGI; tests/e2e/test_limits.py tests them on real sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from service.api.limits import GUARD_AFTER_SECONDS, UploadLimits
from service.api.problems import problem_response
from service.errors import UploadTooLargeError
from service.inference.live_model import Status
from service.settings import Settings

SOON = 0.01  # a limit so short that it has passed when the guard starts
BODY = b"x" * 100


class Client:
    """A client that sends ``parts`` of a body, then disconnects if it ``leaves``, else waits."""

    def __init__(self, *parts: bytes, complete: bool = True, leaves: bool = False) -> None:
        last = len(parts) - 1
        self.messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": i < last or not complete}
            for i, part in enumerate(parts)
        ]
        self.reads = 0
        self.leaves = leaves
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        """Return the next message, as a server would."""
        self.reads += 1
        if self.messages:
            return self.messages.pop(0)
        if not self.leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Keep a message of the answer."""
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        """Status of the answer; None if it has not begun."""
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> Headers:
        """Headers of the answer."""
        return Headers(raw=self.sent[0]["headers"])

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer was sent."""
        return bool(self.sent) and not self.sent[-1].get("more_body", False)


class App:
    """An application that reads the body, waits ``seconds``, and answers with the body's length."""

    def __init__(self, seconds: float = 0, reads: bool = True) -> None:
        self.seconds = seconds
        self.reads = reads
        self.finished = 0
        self.tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await (await self.answer(Request(scope, receive)))(scope, receive, send)
        self.finished += 1

    async def answer(self, request: Request) -> Response:
        """Return the answer to a request."""
        try:
            body = await request.body() if self.reads else b""
        except UploadTooLargeError as error:
            return problem_response(request.scope, error)
        await asyncio.sleep(self.seconds)
        self.tasks = asyncio.all_tasks()
        return PlainTextResponse(str(len(body)))


class StreamingApp(App):
    """An application that begins its answer at once and ends it after ``seconds``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self.reads:
            await Request(scope, receive).body()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(self.seconds)
        await send({"type": "http.response.body", "body": b"end"})
        self.finished += 1


def make_scope(method: str = "POST", **headers: str) -> Scope:
    """Build the scope of a request to /predict."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    state = {"request_id": "abc"}
    return {"type": "http", "method": method, "path": "/predict", "headers": raw, "state": state}


def limit(app: App, status: Status = "ready", **settings: Any) -> UploadLimits:
    """Wrap ``app`` in the limits."""
    return UploadLimits(app, Settings(**settings), lambda: status)


def upload(limits: UploadLimits, client: Client, **headers: str) -> None:
    """Serve one upload, and check that it no longer counts as in flight."""
    asyncio.run(limits(make_scope(**headers), client.receive, client.send))
    assert (limits.uploads, limits.bytes_reserved) == (0, 0)


@pytest.mark.parametrize("status", ["starting", "draining", "failed"])
def test_service_that_is_not_ready_rejects_uploads(status: Status) -> None:
    """A service that is not ready answers 503 without reading the body."""
    client = Client(BODY)
    upload(limit(App(), status), client)
    assert (client.status, client.reads) == (503, 0)
    assert (client.headers.get("connection") == "close") == (status == "draining")


def test_other_methods_have_no_limits() -> None:
    """A GET is answered in every status, however large its body is."""
    client = Client(BODY)
    upload(limit(App(), "starting", max_upload_bytes=1), client, method="GET")
    assert client.status == 200


def test_declared_size_is_checked_before_the_body_is_read() -> None:
    """A Content-Length above the limit is answered 413, and the body is never read."""
    client = Client(BODY)
    upload(limit(App(), max_upload_bytes=99), client, content_length="100")
    assert (client.status, client.reads) == (413, 0)


@pytest.mark.parametrize("declared", [{}, {"content_length": "10"}, {"content_length": "many"}])
def test_real_size_is_checked_too(declared: dict[str, str]) -> None:
    """A body is answered 413 as soon as it exceeds the limit, whatever length it declares."""
    client = Client(BODY, BODY, BODY)
    upload(limit(App(), max_upload_bytes=199), client, **declared)
    assert (client.status, client.reads) == (413, 2)
    assert client.headers["connection"] == "close"


def test_body_of_the_largest_size_is_allowed() -> None:
    """An upload exactly at all limits is answered."""
    client = Client(BODY, BODY)
    settings: dict[str, Any] = {
        "max_upload_bytes": 200,
        "max_bytes_in_flight": 200,
        "max_uploads_in_flight": 1,
    }
    upload(limit(App(), **settings), client, content_length="200")
    assert client.status == 200


def test_upload_alone_is_admitted() -> None:
    """A service whose uploads may be larger than all uploads together still takes one by one."""
    client = Client(BODY)
    upload(limit(App(), max_upload_bytes=500, max_bytes_in_flight=199), client)
    assert client.status == 200


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"max_uploads_in_flight": 1}, b"1 uploads are in flight; at most 1 are allowed"),
        (
            {"max_bytes_in_flight": 199},
            b"100 bytes are in flight, and this upload adds 100; at most 199",
        ),
    ],
)
def test_upload_beyond_the_limits_is_rejected(settings: dict[str, Any], detail: bytes) -> None:
    """An upload that exceeds the uploads or bytes in flight gets 503 with Retry-After."""
    first, second = Client(BODY), Client(BODY)
    limits = limit(App(seconds=0.05), **settings)

    async def upload_two() -> None:
        scopes = [make_scope(content_length="100") for _ in range(2)]
        one = asyncio.create_task(limits(scopes[0], first.receive, first.send))
        await asyncio.sleep(0)
        await limits(scopes[1], second.receive, second.send)
        await one

    asyncio.run(upload_two())
    assert (first.status, second.status, second.reads) == (200, 503, 0)
    assert second.headers["retry-after"] == "1"
    assert detail in second.sent[1]["body"]


@pytest.mark.parametrize(
    ("mean_seconds", "expected"), [(0.0, "1"), (1.0, "1"), (2.3, "3"), (3.0, "3")]
)
def test_client_is_told_to_wait_for_a_mean_duration(mean_seconds: float, expected: str) -> None:
    """A rejected upload may come again after the mean duration, rounded up; at least 1 s."""
    limits = limit(App(), max_uploads_in_flight=1)
    limits.uploads, limits.mean_seconds = 1, mean_seconds
    client = Client(BODY)
    asyncio.run(limits(make_scope(), client.receive, client.send))
    assert (client.status, client.headers["retry-after"]) == (503, expected)


def test_mean_duration_follows_the_uploads() -> None:
    """Each upload moves the mean a twentieth of the way to its own duration."""
    limits = limit(App(seconds=0.2))
    for before in (0, 100):
        limits.mean_seconds = before
        started = time.monotonic()
        upload(limits, Client(BODY))
        moved = limits.mean_seconds - before * 19 / 20
        assert 0.2 / 20 <= moved <= (time.monotonic() - started) / 20


def test_quick_upload_has_no_guard() -> None:
    """A guard task exists only for an upload that takes longer than GUARD_AFTER_SECONDS."""
    app = App(seconds=GUARD_AFTER_SECONDS / 2)
    upload(limit(app), Client(BODY))
    assert len(app.tasks) == 1
    app = App(seconds=2 * GUARD_AFTER_SECONDS)
    upload(limit(app), Client(BODY))
    assert len(app.tasks) == 2


class SlowClient(Client):
    """A client that waits ``pause`` seconds before each part after the first."""

    def __init__(self, pause: float, *parts: bytes, complete: bool = True) -> None:
        super().__init__(*parts, complete=complete)
        self.pause = pause

    async def receive(self) -> Message:
        """Return the next message after the pause."""
        if self.reads and self.messages:
            await asyncio.sleep(self.pause)
        return await super().receive()


def test_steady_body_may_take_longer_than_the_timeout() -> None:
    """A body whose parts keep coming is answered, however long the whole body takes."""
    client = SlowClient(0.1, *[bytes(8000)] * 8)  # 80 kB/s
    limits = limit(App(), upload_timeout_seconds=0.4, request_timeout_seconds=0.4)
    upload(limits, client)
    assert client.status == 200


@pytest.mark.parametrize("parts", [1, 4])
def test_body_that_stalls_is_cancelled(parts: int) -> None:
    """A body that came steadily and then stops is answered 408, and the connection closes."""
    client = SlowClient(0.1, *[bytes(8000)] * parts, complete=False)
    app = App()
    upload(limit(app, upload_timeout_seconds=0.3), client)
    assert (client.status, app.finished) == (408, 0)
    assert client.headers["connection"] == "close"


def test_body_of_single_bytes_is_cancelled() -> None:
    """A client that sends a byte now and then is never silent, but too slow: it gets 408."""
    client = SlowClient(0.1, *[b"x"] * 1000)
    upload(limit(App(), upload_timeout_seconds=0.3), client)
    assert client.status == 408
    assert client.messages


def test_slow_body_is_cancelled() -> None:
    """A body that does not arrive in time is answered 408, and the connection closes."""
    client = Client(BODY, complete=False)
    app = App()
    upload(limit(app, upload_timeout_seconds=SOON), client)
    assert (client.status, app.finished) == (408, 0)
    assert client.headers["connection"] == "close"


@pytest.mark.parametrize("complete", [True, False])
def test_deadline_cancels_the_request(complete: bool) -> None:
    """A late answer becomes 504; the connection closes if the body has not arrived in full."""
    client = Client(BODY, complete=complete)
    app = App(seconds=30)
    upload(limit(app, request_timeout_seconds=SOON), client)
    assert (client.status, app.finished) == (504, 0)
    assert ("connection" in client.headers) == (not complete)


def test_client_that_leaves_cancels_its_request() -> None:
    """If the client disconnects, its request is cancelled and nothing is sent."""
    client = Client(BODY, leaves=True)
    app = App(seconds=30)
    upload(limit(app), client)
    assert (client.sent, app.finished) == ([], 0)


def test_client_that_leaves_in_the_middle_of_its_body_is_no_error() -> None:
    """If the client disconnects before its body is complete, the request ends without an answer."""
    client = Client(BODY, complete=False, leaves=True)
    app = App()
    upload(limit(app), client)
    assert (client.sent, app.finished) == ([], 0)


@pytest.mark.parametrize(
    ("settings", "reads", "leaves"),
    [
        ({"request_timeout_seconds": SOON}, True, False),
        ({"upload_timeout_seconds": SOON}, False, False),
        ({}, True, True),
    ],
    ids=["deadline", "upload timeout", "client gone"],
)
def test_answer_that_has_begun_is_not_cancelled(
    settings: dict[str, Any], reads: bool, leaves: bool
) -> None:
    """Once the answer has begun, no limit cuts it off and no second answer follows."""
    client = Client(BODY, leaves=leaves)
    app = StreamingApp(2 * GUARD_AFTER_SECONDS, reads)
    upload(limit(app, **settings), client)
    assert (client.status, client.is_complete, len(client.sent)) == (200, True, 2)
    assert app.finished == 1


def stop(limits: UploadLimits, client: Client) -> None:
    """Cancel an upload in the middle, as the server does at its shutdown timeout."""

    async def cancel() -> None:
        request = asyncio.create_task(limits(make_scope(), client.receive, client.send))
        await asyncio.sleep(SOON)
        request.cancel()
        await request  # it sends an answer instead of raising CancelledError

    asyncio.run(cancel())


@pytest.mark.parametrize(("kind", "status"), [(App, 503), (StreamingApp, 200)])
def test_shutdown_timeout_answers_503(kind: type[App], status: int) -> None:
    """At the shutdown timeout an upload is answered 503, unless its answer has begun."""
    client = Client(BODY)
    app = kind(seconds=30)
    stop(limit(app), client)
    assert (client.status, app.finished) == (status, 0)
    assert len([m for m in client.sent if m["type"] == "http.response.start"]) == 1


def test_uploads_may_fill_the_bytes_in_flight() -> None:
    """Uploads that hold exactly as many bytes as are allowed are all admitted."""
    first, second = Client(BODY), Client(BODY)
    limits = limit(App(seconds=0.05), max_bytes_in_flight=2 * len(BODY))

    async def upload_two() -> None:
        scope = make_scope(content_length=str(len(BODY)))
        await asyncio.gather(*(limits(scope, each.receive, each.send) for each in (first, second)))

    asyncio.run(upload_two())
    assert (first.status, second.status) == (200, 200)
