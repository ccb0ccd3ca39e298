"""What a supervisor tells a worker process through the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

ASSIGNMENT_VARIABLE = "WORKER_ASSIGNMENT"  # not SERVICE_...: users do not set it


@dataclass(frozen=True)
class Assignment:
    """One worker's task; a process that has an assignment is a worker.

    ``socket_number`` is the file descriptor of the inherited listening socket. ``threads`` is how
    many images the worker processes at the same time. ``is_replacement`` is true if other workers
    already serve. All workers write their metrics to ``metrics_folder``. ``settings`` are the
    supervisor's settings in JSON: the file of settings may have changed since the start.
    """

    socket_number: int
    threads: int
    is_replacement: bool
    metrics_folder: str
    settings: dict[str, Any]

    def to_environment(self) -> dict[str, str]:
        """Return the worker's environment: this process's variables and the assignment."""
        return os.environ | {ASSIGNMENT_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Read the assignment; None if no supervisor started this process."""
        assignment = environment.get(ASSIGNMENT_VARIABLE)
        return cls(**json.loads(assignment)) if assignment else None
