"""Client and AsyncClient against a scripted HTTP server."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

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
from tests.service.client.scripted_server import CLASSES, ScriptedServer, unused_url

ROOT = Path(__file__).parents[3]


def test_bytes_and_paths_give_a_prediction(server: ScriptedServer, images: Path) -> None:
    """Bytes, a Path and a str each give the server's full answer, sync and async."""
    expected = Prediction(
        class_id=0,
        class_name=CLASSES[0],
        probability=0.9,
        probabilities={CLASSES[0]: 0.9, CLASSES[1]: 0.05, CLASSES[2]: 0.05},
        model_name="scripted",
        model_version="7",
    )
    inputs = (b"200 0", images / "a.png", str(images / "a.png"))

    async def predict_all() -> list[Prediction]:
        async with AsyncClient(server.url) as client:
            return [await client.predict(image) for image in inputs]

    with Client(server.url + "/predict") as client:  # the endpoint's URL works too
        assert [client.predict(image) for image in inputs] == [expected] * 3
    assert asyncio.run(predict_all()) == [expected] * 3


def test_api_key_is_a_bearer_token(server: ScriptedServer) -> None:
    """A key is sent as a bearer token and is not in the repr; without a key there is no header."""
    with Client(server.url, "secret") as client:
        client.predict(b"200 0")
        assert "secret" not in repr(client)
    with Client(server.url) as client:
        client.predict(b"200 0")
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer secret", None]


def test_options_are_parameters_of_the_request(server: ScriptedServer) -> None:
    """Each option of a call is a parameter of its request alone, sync and async, one or many."""
    options: dict[str, Any] = {"top_k": 2, "coverage": 0.9, "explain": True, "model": "tiny"}

    async def predict() -> None:
        async with AsyncClient(server.url) as client:
            await client.predict(b"200 0", **options)
            await client.predict_batch([b"200 0"], **options)

    with Client(server.url) as client:
        client.predict(b"200 0", **options)
        client.predict_batch([b"200 0"], **options)
        client.predict(b"200 0", model="tiny")
        client.predict(b"200 0")
    asyncio.run(predict())
    query = "top_k=2&coverage=0.9&explain=true&model=tiny"
    both = [f"/predict?{query}", f"/predict/batch?{query}"]
    assert server.paths == [*both, "/predict?model=tiny", "/predict", *both]


def test_batch_is_retried_and_raises(server: ScriptedServer) -> None:
    """A batch is retried like one image; the error of a whole request is raised; sync and async."""

    async def predict_async(image: bytes) -> list[Prediction | ProblemError]:
        async with AsyncClient(server.url, backoff_s=0.001) as client:
            return await client.predict_batch([image])

    with Client(server.url, backoff_s=0.001) as client:
        expected = [client.predict(b"200 2")]
        assert client.predict_batch([]) == []
        assert client.predict_batch([b"503;200 2"]) == expected
        assert asyncio.run(predict_async(b"503;503;200 2")) == expected
        for wrong, error in {b"413": ProblemError, b"garbage": UnexpectedAnswerError}.items():
            with pytest.raises(error):
                client.predict_batch([wrong])
            with pytest.raises(error):
                asyncio.run(predict_async(wrong))
        with pytest.raises(UnexpectedAnswerError, match="batch"):
            client.predict_batch([b"200 0", b"200 1"])  # the server answers for the first alone
        with pytest.raises(UnreadableFileError, match="absent"):
            client.predict_batch([b"200 0", "absent.png"])


@pytest.mark.parametrize("first", ["429", "502", "503", "504", "drop"])
def test_temporary_failures_are_retried(server: ScriptedServer, first: str) -> None:
    """Overload, a gateway's error and a broken connection are retried, sync and async."""

    async def predict() -> Prediction:
        async with AsyncClient(server.url, backoff_s=0.01) as client:
            return await client.predict(f"{first};{first};200 1".encode())

    with Client(server.url, backoff_s=0.01) as client:
        assert client.predict(f"{first};200 2".encode()).class_id == 2
    assert asyncio.run(predict()).class_id == 1
    assert sorted(map(len, server.arrivals.values())) == [2, 3]


async def predict_async(url: str, image: bytes, backoff_s: float = 0.001) -> None:
    """Send one image with the async client."""
    async with AsyncClient(url, backoff_s=backoff_s) as client:
        await client.predict(image)


def predict_sync(url: str, image: bytes, backoff_s: float = 0.001) -> None:
    """Send one image with the sync client."""
    with Client(url, backoff_s=backoff_s) as client:
        client.predict(image)


SENDERS = {"sync": predict_sync, "async": lambda *given: asyncio.run(predict_async(*given))}


@pytest.mark.parametrize("kind", SENDERS)
def test_backoff_doubles(server: ScriptedServer, kind: str) -> None:
    """Without Retry-After, the retries wait at least 1, 2 and 4 times ``backoff_s``."""
    body = f"503;503;503;200 1;{kind}".encode()
    SENDERS[kind](server.url, body, 0.05)
    pauses = [after - before for before, after in pairwise(server.arrivals[body])]
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2), strict=True))


@pytest.mark.parametrize("kind", SENDERS)
def test_retry_after_in_seconds_is_honoured(server: ScriptedServer, kind: str) -> None:
    """The retry waits for the seconds that Retry-After asks for."""
    body = f"503 after 1;200 1;{kind}".encode()
    SENDERS[kind](server.url, body)
    first, second = server.arrivals[body]
    assert second - first >= 1.0


@pytest.mark.parametrize("kind", SENDERS)
def test_retry_after_as_a_date_is_honoured(server: ScriptedServer, kind: str) -> None:
    """The retry comes no sooner than the date that Retry-After names."""
    moment = int(time.time()) + 2
    body = f"503 after {formatdate(moment, usegmt=True)};200 1;{kind}".encode()
    SENDERS[kind](server.url, body)
    assert time.time() >= moment


def test_backoff_is_at_most_half_a_minute(server: ScriptedServer) -> None:
    """However long ``backoff_s`` is, no pause is longer than 30 s."""
    pauses: list[float] = []

    def stop(details: RetryDetails) -> None:
        pauses.append(details.wait_for)
        raise InterruptedError

    set_on_retry_hooks([stop])
    try:
        with Client(server.url, backoff_s=1000) as client, pytest.raises(InterruptedError):
            client.predict(b"503;200 1")
    finally:
        set_on_retry_hooks(None)
    assert pauses == [30]


@pytest.mark.timeout(30)
def test_endless_retry_after_is_an_error(server: ScriptedServer) -> None:
    """The client gives up at once if the server asks it to wait for a day."""
    with Client(server.url) as client, pytest.raises(ProblemError) as caught:
        client.predict(b"503 after 86400")
    assert caught.value.retry_after_s == 86400
    assert len(server.arrivals[b"503 after 86400"]) == 1


@pytest.mark.parametrize(
    "asked", ["soon", "Wed, 21 Oct 2015 07:28:00 GMT", "-1", "Wed, 21 Oct 2015 07:28:00 -0000"]
)
def test_invalid_retry_after_is_retried(server: ScriptedServer, asked: str) -> None:
    """A Retry-After that is invalid or in the past does not prevent a retry."""
    with Client(server.url, backoff_s=0.001) as client:
        assert client.predict(f"429 after {asked};200 1".encode()).class_id == 1


def test_gives_up(server: ScriptedServer) -> None:
    """After ``retries`` retries the last error is raised, with the server's problem body."""
    with (
        Client(server.url, retries=3, backoff_s=0.001) as client,
        pytest.raises(ProblemError) as caught,
    ):
        client.predict(b"503")
    assert len(server.arrivals[b"503"]) == 4
    error = caught.value
    assert (error.status, error.problem_type, error.request_id) == (503, "/problems/503", "r-1")
    assert (error.problem["detail"], error.detail) == ("the\ndetail", "the detail")


@pytest.mark.parametrize("script", ["400", "401", "413", "415", "422", "500", "page", "garbage"])
def test_permanent_failures_are_not_retried(server: ScriptedServer, script: str) -> None:
    """An error that a retry cannot fix, or a proxy's error page, is raised at once."""
    titles = {"page": "HTTP 500 Internal Server Error", "garbage": "Unexpected answer"}
    with Client(server.url) as client, pytest.raises(ClientError) as caught:
        client.predict(script.encode())
    assert len(server.arrivals[script.encode()]) == 1
    assert caught.value.title == titles.get(script, f"Title {script}")


def test_other_faults_have_their_own_errors(server: ScriptedServer, tmp_path: Path) -> None:
    """Garbage, silence, no listener, no file and no URL each raise their own ClientError."""
    with Client(server.url, retries=0, timeout_s=0.2) as client:
        for strange in (b"garbage", b"infinite"):
            with pytest.raises(UnexpectedAnswerError, match="hello"):
                client.predict(strange)
        with pytest.raises(NoAnswerError, match="ReadTimeout"):
            client.predict(b"hang")
        with pytest.raises(UnreadableFileError, match="absent"):
            client.predict(tmp_path / "absent.png")
    with (
        Client(server.url) as client,
        pytest.raises(ProblemError, match=r"redirects to https://shop.example, .* use that URL"),
    ):
        client.predict(b"307 to https://shop.example")
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


def test_cancelled_call_is_not_retried(server: ScriptedServer) -> None:
    """A cancelled call ends at once with CancelledError."""

    async def cancel() -> None:
        async with AsyncClient(server.url) as client:
            call = asyncio.create_task(client.predict(b"hang"))
            while not server.arrivals[b"hang"]:  # noqa: ASYNC110 - the server is in another thread
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(cancel())
    assert len(server.arrivals[b"hang"]) == 1


def test_retries_are_silent(server: ScriptedServer) -> None:
    """A retry prints nothing in a program that does not configure logging."""
    code = (
        "from service.client import Client\n"
        f"print(Client({server.url!r}, backoff_s=0.001).predict(b'503;200 2').class_id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_retries_reach_the_log(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """A program that configures logging sees each retry as a warning."""
    with Client(server.url, backoff_s=0.001) as client:
        client.predict(b"503;503;200 2")
    retries = [record for record in caplog.records if record.name == "stamina"]
    assert [record.levelno for record in retries] == [logging.WARNING] * 2


def test_password_of_the_url_is_not_in_errors(server: ScriptedServer) -> None:
    """Errors go into files and logs: they name the address without user and password."""
    address = server.url.removeprefix("http://")
    urls = {f"http://user:secret@{address}": b"garbage", "http://user:secret@127.0.0.1:1": b"200 1"}
    for url, script in urls.items():
        with Client(url, retries=0) as client, pytest.raises(ClientError) as caught:
            client.predict(script)
        assert "http://127.0.0.1" in str(caught.value)
        assert "secret" not in str(caught.value)
