"""The format of log lines, and the log line of each request."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from starlette.types import Scope

from service.telemetry.record import (
    Record,
    describe_outcome,
    is_out_of_distribution,
    name_model,
)
from service.telemetry.tracing import trace_id

access_log = logging.getLogger("service.access")

MAX_PATH_CHARACTERS = 200  # the log line of a request cuts a longer path
MAX_ADDRESS_CHARACTERS = 100  # a proxy that is not strict forwards anything as an address
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logging(level: str, form: Literal["auto", "json", "text"]) -> None:
    """Log each event as one line to standard error; ``auto`` is text on a terminal, else JSON."""
    handler = logging.StreamHandler()
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(TEXT_FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a log record."""
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
    """Formats a log record as text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the library's name
        """Return the line of a log record."""
        for name, value in getattr(record, "request", {}).items():
            record.message += f"{name}={value!r} "  # repr() escapes line breaks
        return super().formatMessage(record)


def log_request(
    scope: Scope,
    route: str,
    status: int,
    seconds: float,
    record: Record,
    *,
    with_address: bool = False,
) -> None:
    """Log one finished request; ``with_address`` adds the client's address."""
    if access_log.isEnabledFor(logging.INFO):
        # access_log.info() would be slower: it searches the stack for the line that called it.
        line = logging.LogRecord(access_log.name, logging.INFO, "", 0, "", (), None)
        line.request = fields = _request_fields(scope, route, status, seconds)
        if with_address and scope.get("client"):
            fields["client_address"] = scope["client"][0][:MAX_ADDRESS_CHARACTERS]
        _add_image_fields(fields, record)
        access_log.handle(line)


def _request_fields(scope: Scope, route: str, status: int, seconds: float) -> dict[str, object]:
    state = scope["state"]
    fields: dict[str, object] = {
        "request_id": state["request_id"],
        "method": scope["method"],
        "route": route,
        "path": scope["path"][:MAX_PATH_CHARACTERS],
        "status": status,
        "total_ms": _milliseconds(seconds),
    }
    if traced := trace_id(scope):
        fields["trace_id"] = traced
    fields |= {name: state[name] for name in ("client", "problem") if name in state}
    return fields


def _add_image_fields(fields: dict[str, object], record: Record) -> None:
    if record.upload_bytes is not None:
        fields["bytes"] = record.upload_bytes
    if record.failures or len(record.answers) > 1:
        fields["images"] = len(record.answers) + len(record.failures)
        fields["failed"] = len(record.failures)
        fields["out_of_distribution"] = sum(map(is_out_of_distribution, record.answers))
        fields["model"] = ",".join(sorted(set(map(name_model, record.answers))))
    elif record.answers:
        (answer,) = record.answers
        fields |= {f"{name}_ms": _milliseconds(spent) for name, spent in answer.durations.items()}
        fields |= describe_outcome(answer)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
