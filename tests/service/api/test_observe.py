"""The middleware that records each request: its id, headers, metrics and log line."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient
from starlette.types import Message

from service.api.observe import CLIENT_GONE, Observe
from service.app import create_app
from service.settings import Settings
from tests.service.api.test_predict import IMAGE, assert_problem, post
from tests.service.conftest import wait_until_ready
from tests.service.telemetry.test_logs import entries
from tests.service.telemetry.test_metrics import samples

STEP = r"(\w+);dur=(\d+\.\d{3})"
NEW_ID = r"[0-9a-f]{32}"


def requests(route: str, status: int) -> str:
    """Name the series of a route's requests with a status."""
    return f'service_requests_total{{route="{route}",status="{status}"}}'


def rejections(reason: str) -> str:
    """Name the series of rejections for a reason."""
    return f'service_rejections_total{{reason="{reason}"}}'


@pytest.fixture
def faulty(linear_folder: Path) -> Iterator[TestClient]:
    """Client of an application with two faulty routes: one fails at once, one in mid-answer."""
    app = create_app(Settings(models=(linear_folder,), device="cpu"))

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    @app.get("/broken-later")
    async def broken_later() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            raise RuntimeError("a secret")

        return StreamingResponse(parts())

    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize("sent", ["abc-123", "a" * 128, "A:b/c+d=e.f_g"])
def test_plain_request_id_is_kept(linear: TestClient, sent: str) -> None:
    """A client's own X-Request-ID comes back with the answer."""
    answer = linear.get("/health", headers={"X-Request-ID": sent})
    assert answer.headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "x\tforged", "a b", '"', "a" * 129])
def test_other_request_id_is_replaced(linear: TestClient, sent: str) -> None:
    """An id that could forge log lines, or is too long, is replaced by a new one."""
    answer = linear.get("/health", headers={"X-Request-ID": sent})
    assert re.fullmatch(NEW_ID, answer.headers["x-request-id"])


def test_new_request_ids_differ(linear: TestClient) -> None:
    """Two requests without an id get different ids."""
    ids = {linear.get("/health").headers["x-request-id"] for _ in range(10)}
    assert len(ids) == 10


def test_answer_has_the_time_of_each_step(linear: TestClient) -> None:
    """An image's answer lists its steps in Server-Timing; the steps add up to at most the total."""
    steps = re.findall(STEP, post(linear, IMAGE).headers["server-timing"])
    assert [name for name, _ in steps] == ["decode", "queue", "inference", "total"]
    *parts, total = [float(milliseconds) for _, milliseconds in steps]
    assert 0 < sum(parts) <= total


def test_only_an_image_has_server_timing(linear: TestClient) -> None:
    """A rejected upload, a batch of two and other paths have no Server-Timing."""
    files = [("file", ("a", IMAGE)), ("file", ("b", IMAGE))]
    answers = [
        post(linear, b"no image"),
        linear.post("/predict/batch", files=files),
        linear.get("/health"),
    ]
    assert [answer.status_code for answer in answers] == [422, 200, 200]
    assert not [answer for answer in answers if "server-timing" in answer.headers]


def test_requests_are_counted_by_route_and_status(linear: TestClient) -> None:
    """A request rejected by a middleware counts for its route; unknown paths share one label."""
    names = [requests("/predict", 200), requests("/predict", 413), requests("unmatched", 404)]
    before = samples(linear)
    post(linear, IMAGE)
    post(linear, b"x" * 1_000_001)
    linear.get("/one")
    linear.get("/two")
    after = samples(linear)
    assert [after[name] - before.get(name, 0) for name in names] == [1, 1, 2]
    assert not [name for name in after if "/one" in name]


def test_rejections_are_counted_by_reason(linear: TestClient) -> None:
    """Each rejected request, and each failed image of a batch, counts once."""
    names = [rejections("unsupported-type"), rejections("unreadable-image")]
    files = [("file", ("a", IMAGE)), ("file", ("b", b"no image")), ("file", ("c", b"nor this"))]
    before = samples(linear)
    post(linear, IMAGE, content_type="text/plain")
    linear.post("/predict/batch", files=files)
    after = samples(linear)
    assert [after[name] - before[name] for name in names] == [1, 2]


def test_unexpected_error_is_opaque(faulty: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a 500 that reveals only the request id; the log gets the traceback."""
    with caplog.at_level(logging.INFO):
        answer = faulty.get("/broken")
    problem = assert_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    assert problem["request_id"] in caplog.text
    assert "RuntimeError: a secret" in caplog.text
    assert entries(caplog)[-1]["problem"] == "internal-error"
    assert samples(faulty)[rejections("internal-error")] == 1
    assert faulty.get("/health/live").status_code == 200


def test_error_in_the_middle_of_an_answer_ends_it(
    faulty: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Once an answer has begun, no other one follows; the request still counts and is logged."""
    with caplog.at_level(logging.INFO):
        answer = faulty.get("/broken-later")
    assert answer.content == b"begun"
    assert "RuntimeError: a secret" in caplog.text
    assert samples(faulty)[requests("/broken-later", 200)] == 1
    assert samples(faulty)["service_requests_in_flight"] == 1


def test_client_that_disconnects_is_no_error(
    linear_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A request whose client has gone counts as 499: no answer, no exception, no traceback."""
    sent: list[Message] = []

    async def leave(*_: object) -> None:
        raise ClientDisconnect

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    metrics = create_app(Settings(models=(linear_folder,), device="cpu")).state.metrics
    scope = {"type": "http", "method": "GET", "path": "/left", "headers": []}
    with caplog.at_level(logging.INFO):
        asyncio.run(Observe(leave, metrics, {"/left"})(scope, receive, send))
    assert not sent
    assert requests("/left", CLIENT_GONE) in metrics.render().decode()
    assert [entry["status"] for entry in entries(caplog)] == [CLIENT_GONE]
    assert "Traceback" not in caplog.text
