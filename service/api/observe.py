"""What is noted of every request, as pure ASGI: its id, its metrics, its log line and its trace."""

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
from service.telemetry.record import Record, outcome
from service.telemetry.tracing import trace_steps

log = logging.getLogger(__name__)

# Anything else could forge lines in the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
CLIENT_GONE = 499
REASONS = (*(name for _, name in TABLE.values()), "internal-error")


class Observe:
    """Give each request an id, answer with it, and note the request in the metrics and the log when it is over.

    The id is the client's ``X-Request-ID`` if that is a plain one, else a new one. An error that nothing else answered
    is logged in full and answered with an opaque 500. In the metrics, what no route took and is not among ``paths``
    shares one label, so that nobody can add labels.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Set[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if REQUEST_ID.fullmatch(offered) else f"{random.getrandbits(128):032x}"
        record = Record()
        state = scope.setdefault("state", {})
        state["request_id"], state["record"] = request_id, record
        status = CLIENT_GONE

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(b"x-request-id", request_id.encode())]
                if len(record.answers) == 1:
                    (answer,) = record.answers
                    headers.append(
                        (
                            b"server-timing",
                            _server_timing(answer, time.perf_counter() - started).encode(),
                        )
                    )
                    trace_steps(answer.durations, {"request_id": request_id, **outcome(answer)})
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        self.metrics.requests_in_flight += 1
        try:
            await self.app(scope, receive, send_and_note)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:  # a defect of ours: its trace goes to the log, and the client is told no more than its id
            log.exception("request %s failed", request_id)
            if status != CLIENT_GONE:
                raise  # an answer has begun, so there is none to be given
            await internal_error(scope)(scope, receive, send_and_note)
        finally:
            self.metrics.requests_in_flight -= 1
            # What was refused on its way has no route yet.
            path: str = scope["path"] if scope["path"] in self.paths else "unmatched"
            route = getattr(scope.get("route"), "path", path)
            seconds = time.perf_counter() - started
            reasons = [TABLE[type(failure)][1] for failure in record.failures]
            if "problem" in state:
                reasons.append(state["problem"])
            self.metrics.observe(route, status, reasons, seconds, record)
            log_request(scope, route, status, seconds, record)


def _server_timing(answer: ImageAnswer, seconds: float) -> str:
    durations = answer.durations | {"total": seconds}
    return ", ".join(f"{name};dur={duration * 1000:.3f}" for name, duration in durations.items())
