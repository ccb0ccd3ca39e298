"""Log lines: their format, the fields of each request, and docs/monitoring.md, which lists them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from starlette.testclient import TestClient

from service.api.keys import new_key
from service.app import create_app
from service.settings import Settings
from service.telemetry.logs import (
    MAX_PATH_CHARACTERS,
    JsonFormatter,
    TextFormatter,
    configure_logging,
)
from tests.service.api.test_predict import IMAGE, post
from tests.service.conftest import wait_until_ready
from tests.service.telemetry.test_metrics import BLACK, PAGE, WHITE

TRACE = "0af7651916cd43dd8448eb211c80319c"
FORGED_PATH = "/\n2026-01-01 INFO forged"


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of each request's log line."""
    records = [record for record in caplog.records if record.name == "service.access"]
    return [vars(record)["request"] for record in records]


def render(formatter: logging.Formatter, **attributes: object) -> str:
    """Return the log line of a record with ``attributes``."""
    record = logging.makeLogRecord({"name": "service.access", "levelname": "INFO"} | attributes)
    return formatter.format(record)


def documented_fields() -> set[str]:
    """Return the names in the table of log fields in docs/monitoring.md."""
    table = PAGE.read_text().split("| field |", 1)[1].split("\n\n", 1)[0]
    return {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger without the test runner's handlers, which it gets back afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers.clear()
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("level", "form", "is_json"), [("info", "json", True), ("error", "text", False)]
)
def test_level_and_form_are_as_configured(
    root_logger: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    level: str,
    form: Literal["json", "text"],
    is_json: bool,
) -> None:
    """Lines below the level are left out, and the others are JSON or text on standard error."""
    configure_logging(level, form)
    root_logger.info("below an error")
    root_logger.error("an error")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (2 if level == "info" else 1)
    assert ("ERROR root: an error" in lines[-1]) is not is_json
    assert not is_json or json.loads(lines[-1])["message"] == "an error"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_automatic_form_is_text_on_a_terminal_only(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    """People read text on a terminal; programs get JSON."""
    reading, writing = os.openpty() if is_terminal else os.pipe()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        configure_logging("info", "auto")
        root_logger.info("hello")
        stream.flush()
        line = os.read(reading, 1000)
        root_logger.handlers.clear()
    os.close(reading)
    assert line.startswith(b"{") is not is_terminal
    assert b"hello" in line


def test_entry_describes_the_request(
    linear_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A request's entry has its client, route, status and trace, and the time of each step."""
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    settings = Settings(models=(linear_folder,), device="cpu", api_keys_file=tmp_path / "keys")
    trace = f"00-{TRACE}-b7ad6b7169203331-01"
    headers = {"X-API-Key": key, "X-Request-ID": "abc", "traceparent": trace}
    with (
        TestClient(create_app(settings)) as client,
        caplog.at_level(logging.INFO, "service.access"),
    ):
        wait_until_ready(client)
        caplog.clear()
        png, text = ({"content-type": name} for name in ("image/png", "text/plain"))
        response = client.post("/predict", content=IMAGE, headers=headers | png)
        client.post("/predict", content=b"x", headers=headers | text)
        client.post("/predict")
    answered, rejected, unauthorized = entries(caplog)
    steps = answered["decode_ms"] + answered["queue_ms"] + answered["inference_ms"]
    assert answered["total_ms"] >= steps > 0
    assert answered["bytes"] == len(IMAGE)
    assert (answered["batch_size"], answered["class_name"]) == (1, response.json()["class_name"])
    for entry, status in ((answered, 200), (rejected, 415)):
        assert {"request_id": "abc", "trace_id": TRACE, "client": "alice"}.items() <= entry.items()
        assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/predict", status)
    assert rejected["problem"] == "unsupported-type"
    assert unauthorized["status"] == 401
    assert "client" not in unauthorized


def test_page_lists_every_field(colours: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """docs/monitoring.md lists every field of a log line, and no other."""
    files = [("file", ("a", IMAGE)), ("file", ("b", b"no image"))]
    with caplog.at_level(logging.INFO, "service.access"):
        post(colours, IMAGE)
        post(colours, b"no image")
        colours.post("/predict/batch", files=files)
    fields = {name for entry in entries(caplog) for name in entry} | {"time", "level"}
    # ``client`` needs an API key, and ``trace_id`` a trace: see test_entry_describes_the_request.
    # See test_address_is_logged_if_asked_for for ``client_address``.
    assert fields == documented_fields() - {"client", "client_address", "trace_id"}


def test_entry_has_the_answer_and_its_model(
    colours: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry of an image has what its answer has: class, probability, in_distribution, model."""
    with caplog.at_level(logging.INFO, "service.access"):
        answer = post(colours, IMAGE).json()
    (entry,) = entries(caplog)
    assert entry["class_name"] == answer["class_name"]
    assert entry["probability"] == pytest.approx(answer["probability"], abs=1e-4)
    assert entry["in_distribution"] is answer["in_distribution"]
    assert entry["model"] == "colours/1"


def test_entry_of_a_batch_counts_its_images(
    colours: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry of a batch has how many images failed and how many look like no class."""
    files = [("file", ("a", image)) for image in (WHITE, BLACK, BLACK, b"no image")]
    with caplog.at_level(logging.INFO, "service.access"):
        *answers, _ = colours.post("/predict/batch", files=files).json()["predictions"]
    (entry,) = entries(caplog)
    assert [answer["in_distribution"] for answer in answers] == [False, True, True]
    assert (entry["images"], entry["failed"], entry["model"]) == (4, 1, "colours/1")
    assert entry["out_of_distribution"] == 1


@pytest.mark.parametrize("asked", [False, True])
def test_address_is_logged_if_asked_for(
    linear_folder: Path, caplog: pytest.LogCaptureFixture, asked: bool
) -> None:
    """Only with the setting, the entry has the client's address."""
    settings = Settings(models=(linear_folder,), device="cpu", log_client_address=asked)
    with caplog.at_level(logging.INFO, "service.access"):
        TestClient(create_app(settings), client=("192.0.2.1", 1)).get("/health/live")
    (entry,) = entries(caplog)
    assert entry.get("client_address") == ("192.0.2.1" if asked else None)


def test_long_path_is_cut(linear: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    """A client cannot fill the log with a long path."""
    with caplog.at_level(logging.INFO, "service.access"):
        linear.get("/" + "a" * 5000)
    (entry,) = entries(caplog)
    assert entry["path"] == "/" + "a" * (MAX_PATH_CHARACTERS - 1)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter("%(levelname)s %(message)s")])
def test_line_break_in_a_path_starts_no_line(formatter: logging.Formatter) -> None:
    """A path with a line break cannot forge a line of the log, as JSON or as text."""
    line = render(formatter, request={"path": FORGED_PATH, "status": 404})
    assert line.count("\n") == 0
    assert "404" in line


def test_json_line_has_time_level_and_fields() -> None:
    """A line of JSON holds its fields unchanged, the level, and the time in UTC."""
    entry = json.loads(render(JsonFormatter(), request={"path": FORGED_PATH, "status": 404}))
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"level": "info", "path": FORGED_PATH, "status": 404}


def test_json_line_of_an_error_has_its_traceback() -> None:
    """An event that is no request has a logger and a message; an error also has a traceback."""
    error = ValueError("a reason")
    line = render(JsonFormatter(), msg="failed", exc_info=(ValueError, error, None))
    entry = json.loads(line)
    assert (entry["logger"], entry["message"]) == ("service.access", "failed")
    assert "ValueError: a reason" in entry["traceback"]


def test_long_address_is_cut(linear_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A proxy that forwards anything as an address cannot fill the log."""
    settings = Settings(models=(linear_folder,), device="cpu", log_client_address=True)
    with caplog.at_level(logging.INFO, "service.access"):
        TestClient(create_app(settings), client=("1" * 500, 1)).get("/health/live")
    (entry,) = entries(caplog)
    assert entry["client_address"] == "1" * 100
