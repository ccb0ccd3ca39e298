"""ASGI middleware that records each request: id, metrics, log line, trace, Server-Timing header."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Set

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import TABLE, internal_error
from service.inference.predictor import ImageAnswer
from service.telemetry.logs import log_request
from service.telemetry.metrics import Metrics
from service.telemetry.record import Record, describe_outcome
from service.telemetry.tracing import trace_steps

log = logging.getLogger(__name__)

# With other characters, a client could forge lines in the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_GONE = 499
REASONS = (*(name for _, name in TABLE.values()), "internal-error")


class Observe:
    """Give each request an id, and record it in the metrics, the log and the trace.

    The id is the client's ``X-Request-ID`` if it matches ``REQUEST_ID``, otherwise a new one. An
    exception that nothing else handled is logged with its traceback and answered with a 500 that
    reveals only the request id. A request that reached no route, and whose path is not in
    ``paths``, gets the label ``unmatched``: otherwise clients could create any number of series.
    ``with_address`` adds the client's address to the log lines.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, paths: Set[str], *, with_address: bool = False
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths
        self.with_address = with_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        self.metrics.requests_in_flight += 1
        try:
            await self.app(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = CLIENT_GONE
        except Exception:  # a bug: the log gets its traceback, the client only the request id
            log.exception("request %s failed", exchange.request_id)
            if exchange.status != CLIENT_GONE:
                raise  # the answer has begun, so no other answer can follow
            await internal_error(scope)(scope, receive, exchange.send)
        finally:
            self.metrics.requests_in_flight -= 1
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        # A request that a middleware rejected has no route yet.
        path: str = scope["path"] if scope["path"] in self.paths else "unmatched"
        route = getattr(scope.get("route"), "path", path)
        status, seconds, record = exchange.status, exchange.seconds, exchange.record
        reasons = [TABLE[type(failure)][1] for failure in record.failures]
        if "problem" in scope["state"]:
            reasons.append(scope["state"]["problem"])
        self.metrics.observe(route, status, reasons, seconds, record)
        log_request(scope, route, status, seconds, record, with_address=self.with_address)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._started = time.perf_counter()
        self._send = send
        offered = Headers(scope=scope).get("x-request-id", "")
        is_plain = REQUEST_ID.fullmatch(offered)
        self.request_id = offered if is_plain else f"{random.getrandbits(128):032x}"
        self.record = Record()
        self.status = CLIENT_GONE  # until an answer begins
        state = scope.setdefault("state", {})
        state["request_id"], state["record"] = self.request_id, self.record

    @property
    def seconds(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self._started

    async def send(self, message: Message) -> None:
        """Send one message of the answer; add the id and the duration of each step to its head."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [(b"x-request-id", self.request_id.encode())]
            if len(self.record.answers) == 1:
                (answer,) = self.record.answers
                headers.append((b"server-timing", _server_timing(answer, self.seconds).encode()))
                attributes = {"request_id": self.request_id, **describe_outcome(answer)}
                trace_steps(answer.durations, attributes)
            message["headers"] = [*message["headers"], *headers]
        await self._send(message)


def _server_timing(answer: ImageAnswer, seconds: float) -> str:
    durations = answer.durations | {"total": seconds}
    return ", ".join(f"{name};dur={duration * 1000:.3f}" for name, duration in durations.items())
