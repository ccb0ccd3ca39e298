"""What a supervisor tells a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

from service.server.assignment import ASSIGNMENT_VARIABLE, Assignment

ASSIGNMENT = Assignment(
    socket_number=7,
    threads=3,
    is_replacement=False,
    metrics_folder="/folder/with space ü",
    settings={"port": 9000},
)


def test_assignment_survives_the_environment() -> None:
    """A worker reads exactly the assignment that its supervisor wrote."""
    for assignment in (ASSIGNMENT, replace(ASSIGNMENT, is_replacement=True)):
        assert Assignment.from_environment(assignment.to_environment()) == assignment


def test_another_process_reads_the_assignment() -> None:
    """A child process finds the assignment in its own environment."""
    code = "from service.server.assignment import Assignment as A; print(A.from_environment())"
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=ASSIGNMENT.to_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == f"{ASSIGNMENT}\n"


def test_process_without_a_supervisor_has_no_assignment() -> None:
    """A process that a user started is not a worker."""
    assert Assignment.from_environment({}) is None


def test_worker_keeps_the_other_variables() -> None:
    """A worker has all variables of its supervisor, and one more."""
    environment = ASSIGNMENT.to_environment()
    assert json.loads(environment.pop(ASSIGNMENT_VARIABLE))["threads"] == 3
    assert environment == dict(os.environ)
