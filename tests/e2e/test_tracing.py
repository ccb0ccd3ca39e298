"""The traces of a running server, received by a collector over HTTP (OTLP)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.server import free_port, serving
from tests.service.images import encode, noise

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"content-type": "image/png", "traceparent": f"00-{TRACE}-{PARENT}-01"}
IMAGE = encode(noise(20, 30))


@dataclass(frozen=True)
class Collector:
    """A collector: its address, and the requests that it received."""

    url: str
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """All spans that it received."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which the servers of this test send their traces."""

    class Receive(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            started.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receive) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        started = Collector(f"http://127.0.0.1:{receiver.server_port}")
        monkeypatch.setenv(ENDPOINT, started.url)
        yield started
        receiver.shutdown()


def attributes(span: Span) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    return {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
        for pair in span.attributes
    }


@pytest.mark.parametrize("workers", [1, 2])
def test_trace_of_the_client_is_continued(
    collector: Collector, linear_folder: Path, workers: int
) -> None:
    """An upload is a span of its client's trace, with a child per step; /metrics is not traced."""
    with serving(models=linear_folder, device="cpu", grace_seconds=0, workers=workers) as server:
        answer = httpx2.post(f"{server.url}/predict", content=IMAGE, headers=HEADERS)
        server.get("/metrics")
        server.process.terminate()
        server.process.wait(60)
        assert f'"trace_id": "{TRACE}"' in server.read_log()
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    (request,) = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert (request.name, request.parent_span_id.hex()) == ("POST /predict", PARENT)
    values = attributes(request)
    assert values["http.response.status_code"] == 200
    assert values["request_id"] == answer.headers["x-request-id"]
    assert values["class_name"] == answer.json()["class_name"]
    steps = [span for span in collector.spans if span is not request]
    steps.sort(key=lambda step: step.start_time_unix_nano)
    assert [step.name for step in steps] == ["decode", "queue", "inference"]
    assert {step.parent_span_id for step in steps} == {request.span_id}
    assert request.start_time_unix_nano <= steps[0].start_time_unix_nano
    assert steps[-1].end_time_unix_nano <= request.end_time_unix_nano


def test_rejected_upload_is_traced(collector: Collector, linear_folder: Path) -> None:
    """A request without a traceparent starts a trace, logged by id; a rejection has no steps."""
    with serving(models=linear_folder, device="cpu", grace_seconds=0) as server:
        assert server.predict(b"not an image").status_code == 422
        server.process.terminate()
        server.process.wait(60)
        (span,) = collector.spans
        assert attributes(span)["http.response.status_code"] == 422
        assert f'"trace_id": "{span.trace_id.hex()}"' in server.read_log()
    resource_attributes = [
        attribute
        for request in collector.requests
        for attribute in request.resource_spans[0].resource.attributes
    ]
    names = {pair.value.string_value for pair in resource_attributes if pair.key == "service.name"}
    assert names == {"fashion-classifier"}


def test_unreachable_collector_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, linear_folder: Path
) -> None:
    """When the collector cannot be reached, the service answers and exits within 15 s."""
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}")
    with serving(models=linear_folder, device="cpu", grace_seconds=0) as server:
        answer = httpx2.post(f"{server.url}/predict", content=IMAGE, headers=HEADERS)
        assert answer.status_code == 200
        stopped = time.monotonic()
        server.process.terminate()
        assert server.process.wait(60) == 0
        assert time.monotonic() - stopped < 15
