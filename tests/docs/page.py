"""The parts of a Markdown page that can be checked: blocks, tables, examples."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.server import ROOT

BASE_URL = "http://127.0.0.1:8000"
CHANGING = {"request_id", "uptime_seconds"}  # fields that differ from answer to answer
REST = "..."  # ends an abbreviated string, or is a key that stands for omitted fields


@dataclass(frozen=True)
class Example:
    """A command and the JSON answer that a page shows below it."""

    command: str
    answer: Any

    def run(self, url: str) -> Any:
        """Run the command against the service at ``url`` and return its JSON answer."""
        words = [word.replace(BASE_URL, url) for word in shlex.split(self.command)]
        output = subprocess.run([*words, "-sS"], cwd=ROOT, capture_output=True, check=True)
        return json.loads(output.stdout)


def read_page(path: str) -> str:
    """Read a document of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def find_blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code in one language; an empty ``language`` finds blocks without one."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [code for name, code in blocks if name == language]


def find_examples(path: str) -> list[Example]:
    """Return each console command that is followed by a block of JSON."""
    pattern = r"^```console\n\$ ([^\n]*)\n```\n```json\n(.*?)^```$"
    found = re.findall(pattern, read_page(path), re.DOTALL | re.MULTILINE)
    return [Example(command, json.loads(answer)) for command, answer in found]


def find_table(page: str, first_heading: str) -> list[list[str]]:
    """Return the cells of each row of the table whose first column has this heading."""
    lines = iter(page.splitlines())
    next(line for line in lines if line.startswith(f"| {first_heading} |"))
    next(lines)  # the line between the heading and the rows
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def find_code(cell: str) -> list[str]:
    """Return each text between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def differences(shown: Any, actual: Any, place: str = "answer") -> list[str]:
    """Say where the actual JSON differs from the shown JSON; floats may differ by a thousandth."""
    if isinstance(shown, dict) and isinstance(actual, dict):
        names = shown.keys() - {REST}
        lacking = set() if REST in shown else actual.keys() - names
        found = [f"{place} lacks {name}" for name in sorted(lacking | (names - actual.keys()))]
        for name in names & actual.keys():
            if name not in CHANGING:
                found += differences(shown[name], actual[name], f"{place}.{name}")
        return found
    if isinstance(shown, list) and isinstance(actual, list) and len(shown) == len(actual):
        pairs = enumerate(zip(shown, actual, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{place}[{i}]")]
    if isinstance(shown, str) and shown.endswith(REST) and isinstance(actual, str):
        same = actual.startswith(shown.removesuffix(REST))
    elif isinstance(shown, float) and isinstance(actual, float):
        same = actual == pytest.approx(shown, rel=1e-3, abs=1e-5)
    else:
        same = shown == actual
    return [] if same else [f"{place}: the page shows {shown!r}, the service answers {actual!r}"]
