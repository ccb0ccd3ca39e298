"""Runs mutmut on a sample of its mutants, for the table in ``docs/reliability.md``.

A mutant is the code with one small change. It is killed if a test fails. The settings of mutmut
are in ``pyproject.toml``.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.bench import replace_part

FIRST = "service.api.quota.*"  # the first run makes all mutants, and finds which test reaches what
KILLED = ("killed", "timeout", "segfault")
SEED = 21
MUTMUT = (sys.executable, "-m", "mutmut")


@dataclass(frozen=True)
class Mutant:
    """A mutant's ``name`` is that of its function and a number; ``status`` is mutmut's word."""

    name: str
    status: str

    @property
    def module(self) -> str:
        """The module without its function: mutmut's names of functions begin with ``x``."""
        return self.name.rpartition(".")[0]

    @property
    def is_killed(self) -> bool:
        """Whether a test failed, or ran much longer than usual."""
        return self.status in KILLED


def run_mutants(names: Iterable[str]) -> None:
    """Run the tests on mutants. mutmut shows its progress."""
    subprocess.run([*MUTMUT, "run", *names], check=True)


def ask_mutmut(*words: str) -> str:
    """Return what mutmut prints for a command."""
    return subprocess.run([*MUTMUT, *words], stdout=subprocess.PIPE, text=True, check=True).stdout


def list_mutants() -> list[Mutant]:
    """Return all mutants, as of the last runs."""
    lines = ask_mutmut("results", "--all", "true").splitlines()
    pairs = (line.split(": ") for line in lines if line.strip())
    return [Mutant(name.strip(), status) for name, status in pairs]


def draw_sample(mutants: Iterable[Mutant], each: int) -> list[str]:
    """Draw up to ``each`` names of each module; the same names for the same code."""
    names = defaultdict(list)
    for mutant in mutants:
        names[mutant.module].append(mutant.name)
    drawn = random.Random(SEED)
    return [
        name
        for _, found in sorted(names.items())
        for name in drawn.sample(sorted(found), min(each, len(found)))
    ]


def describe_change(diff: str) -> str:
    """Return a diff's changed lines as one line of Markdown."""
    lines = [
        line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
    changed = [f"{line[0]} {line[1:].strip()}" for line in lines if line[1:].strip()]
    return "`" + " ".join(changed).replace("`", "'").replace("|", "\\|") + "`"


def write_tables(mutants: Iterable[Mutant], diffs: dict[str, str], minutes: float) -> str:
    """Return the table of modules, and the list of the mutants that no test killed."""
    by_module = defaultdict(list)
    for mutant in mutants:
        by_module[mutant.module].append(mutant)
    count = sum(map(len, by_module.values()))
    killed = sum(mutant.is_killed for found in by_module.values() for mutant in found)
    rows = [
        f"| `{module}` | {len(found)} | {sum(mutant.is_killed for mutant in found)} |"
        for module, found in sorted(by_module.items())
    ]
    survivors = [
        f"| `{mutant.module}` | {describe_change(diffs[mutant.name])} | {mutant.status} |"
        for _, found in sorted(by_module.items())
        for mutant in found
        if not mutant.is_killed
    ]
    return "\n".join(
        [
            f"Of {count} mutants, the tests killed {killed}: {killed / max(count, 1):.0%}. "
            f"The run took {minutes:.0f} minutes.",
            *("", "| module | mutants | killed |", "|---|---:|---:|", *rows),
            *("", "| not killed in | change | |", "|---|---|---|", *survivors),
        ]
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mutants", description=__doc__)
    parser.add_argument("--each", type=int, default=5, help="mutants of each module")
    parser.add_argument(
        "--output", type=Path, help="the document to update; without it, print only"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    run_mutants([FIRST])
    sample = draw_sample(list_mutants(), arguments.each)
    run_mutants(sample)
    tried = [mutant for mutant in list_mutants() if mutant.name in set(sample)]
    diffs = {each.name: ask_mutmut("show", each.name) for each in tried if not each.is_killed}
    text = write_tables(tried, diffs, (time.monotonic() - started) / 60)
    print(text)
    if arguments.output:
        replace_part(arguments.output, "mutants", text)


if __name__ == "__main__":
    main()
