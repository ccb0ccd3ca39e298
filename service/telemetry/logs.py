"""Log lines: how they look, and the one that each request has."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from starlette.types import Scope

from service.telemetry.record import Record, describe_outcome
from service.telemetry.tracing import trace_id

access_log = logging.getLogger("service.access")

MAX_PATH_CHARACTERS = 200  # of a request, in its line in the log


def configure_logging(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Log to standard error, one line an event: as JSON, or for people where it is a terminal."""
    handler = logging.StreamHandler()
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler.setFormatter(
        JsonFormatter()
        if as_json
        else TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a log record."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry = {"time": moment, "level": record.levelname.lower()}
        entry |= getattr(record, "request", None) or {
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """One line for people."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the library's name
        """Render a log record."""
        for name, value in getattr(record, "request", {}).items():
            record.message += f"{name}={value!r} "  # a line break in a path must not begin a line
        return super().formatMessage(record)


def log_request(scope: Scope, route: str, status: int, seconds: float, record: Record) -> None:
    """Log one finished request."""
    if access_log.isEnabledFor(logging.INFO):
        # Not by info(), which would look for the line of code that called it.
        line = logging.LogRecord(access_log.name, logging.INFO, "", 0, "", (), None)
        line.request = _log_entry(scope, route, status, seconds, record)
        access_log.handle(line)


def _log_entry(
    scope: Scope, route: str, status: int, seconds: float, record: Record
) -> dict[str, object]:
    state = scope["state"]
    entry: dict[str, object] = {
        "request_id": state["request_id"],
        "method": scope["method"],
        "route": route,
        "path": scope["path"][:MAX_PATH_CHARACTERS],
        "status": status,
        "total_ms": round(seconds * 1000, 3),
    }
    if traced := trace_id(scope):
        entry["trace_id"] = traced
    entry |= {name: state[name] for name in ("client", "problem") if name in state}
    if record.upload_bytes is not None:
        entry["bytes"] = record.upload_bytes
    if record.failures or len(record.answers) > 1:
        entry |= {
            "images": len(record.answers) + len(record.failures),
            "failed": len(record.failures),
        }
    elif record.answers:
        (answer,) = record.answers
        entry |= {
            f"{name}_ms": round(duration * 1000, 3) for name, duration in answer.durations.items()
        }
        entry |= describe_outcome(answer)
    return entry
