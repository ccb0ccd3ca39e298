"""What is told of each request: metrics, log lines, and the page that documents them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.api.keys import new_key
from service.app import create_app
from service.settings import Settings
from service.telemetry.logs import JsonFormatter, TextFormatter
from tests.service.api.test_predict import IMAGE, post
from tests.service.conftest import wait_until_ready

PAGE = Path(__file__).parents[3] / "docs" / "monitoring.md"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def samples(client: TestClient) -> dict[str, float]:
    """Read all metrics by name and labels."""
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def entries(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the log's entries on requests."""
    return [record.request for record in caplog.records if record.name == "service.access"]  # type: ignore[attr-defined]


def render(formatter: logging.Formatter, **request: object) -> str:
    """Render the log line of a request."""
    record = logging.makeLogRecord(
        {"name": "service.access", "levelname": "INFO", "request": request}
    )
    return formatter.format(record)


def test_one_answer_is_counted_in_every_metric(linear_folder: Path) -> None:
    """After one upload each histogram has one value, and size, class and model are told."""
    with TestClient(create_app(Settings(model=linear_folder, device="cpu"))) as client:
        wait_until_ready(client)
        class_name = post(client, IMAGE).json()["class_name"]
        told = samples(client)
    steps = "decode_seconds", "queue_seconds", "inference_seconds", "batch_size"
    assert {
        told[f"service_{name}_count"]
        for name in (*steps, "confidence", "upload_bytes", "image_pixels")
    } == {1}
    assert told['service_request_duration_seconds_count{route="/predict"}'] == 1
    assert told["service_upload_bytes_sum"] == len(IMAGE)
    assert told["service_image_pixels_sum"] == 20 * 30
    assert told[f'service_predictions_total{{class_name="{class_name}"}}'] == 1
    assert (
        told[
            'service_model_info{device="cpu",name="linear",provider="CPUExecutionProvider",version="1"}'
        ]
        == 1
    )
    assert (
        told["service_ready"],
        told["service_queue_depth"],
        told["service_requests_in_flight"],
    ) == (1, 0, 1)


def test_series_begin_at_zero(linear_folder: Path) -> None:
    """Rejections of each reason and predictions of each class are told before the first, and no time of creation is."""
    with TestClient(create_app(Settings(model=linear_folder, device="cpu"))) as client:
        wait_until_ready(client)
        told = samples(client)
    assert told['service_rejections_total{reason="inference-failed"}'] == 0
    assert told['service_rejections_total{reason="internal-error"}'] == 0
    assert len([name for name in told if name.startswith("service_predictions_total")]) == 3
    assert not [name for name in told if "_created" in name]


def test_refused_upload_is_counted_under_its_route(linear: TestClient) -> None:
    """What is refused before it reaches its route counts for that route all the same."""
    name = 'service_requests_total{route="/predict",status="413"}'
    before = samples(linear).get(name, 0)
    post(linear, b"x" * 1_000_001)
    assert samples(linear)[name] == before + 1


def test_log_entry_tells_the_request(
    linear_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A request has one entry: who asked, for what, how it ended, its trace, and what each step took."""
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(line)
    settings = Settings(model=linear_folder, device="cpu", api_keys_file=tmp_path / "keys")
    headers = {
        "X-API-Key": key,
        "X-Request-ID": "abc",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    }
    with (
        TestClient(create_app(settings)) as client,
        caplog.at_level(logging.INFO, "service.access"),
    ):
        wait_until_ready(client)
        caplog.clear()
        response = client.post(
            "/predict", content=IMAGE, headers=headers | {"content-type": "image/png"}
        )
        client.post("/predict", content=b"x", headers=headers | {"content-type": "text/plain"})
        client.post("/predict")
    answered, refused, unknown = entries(caplog)
    assert (
        answered["total_ms"]
        >= answered["decode_ms"] + answered["queue_ms"] + answered["inference_ms"]
        > 0
    )
    assert answered["bytes"] == len(IMAGE)
    assert (answered["batch_size"], answered["class_name"]) == (1, response.json()["class_name"])
    for entry, status in ((answered, 200), (refused, 415)):
        assert {"request_id": "abc", "trace_id": TRACE, "client": "alice"}.items() <= entry.items()
        assert (entry["method"], entry["route"], entry["status"]) == ("POST", "/predict", status)
    assert refused["problem"] == "unsupported-type"
    assert unknown["status"] == 401
    assert "client" not in unknown
    assert answered.keys() | refused.keys() <= documented("field")


def test_log_line_is_one_line() -> None:
    """A path with a line break begins no line, as JSON or for people."""
    path = "/\n2026-01-01 INFO forged"
    for formatter in (JsonFormatter(), TextFormatter("%(levelname)s %(message)s")):
        assert render(formatter, path=path, status=404).count("\n") == 0
    entry = json.loads(render(JsonFormatter(), path=path, status=404))
    assert entry["path"] == path
    assert entry["time"].endswith("+00:00")
    assert entry.keys() - {"path", "status"} <= documented("field")


def test_page_lists_every_metric(linear: TestClient) -> None:
    """docs/monitoring.md has a row for each metric: name, type, labels and help as the service tells them."""
    post(linear, IMAGE)
    rows = []
    for family in text_string_to_metric_families(linear.get("/metrics").text):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append(
            f"| `{name}` | {family.type} | {', '.join(f'`{label}`' for label in labels)} | {family.documentation} |"
        )
    assert [
        line for line in PAGE.read_text().splitlines() if line.startswith("| `service_")
    ] == rows


def documented(column: str) -> set[str]:
    """Return the first column of the page's table whose header begins with ``column``."""
    table = PAGE.read_text().split(f"| {column} |", 1)[1].split("\n\n", 1)[0]
    return {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
