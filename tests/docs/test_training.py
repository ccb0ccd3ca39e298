"""docs/training.md: the command line of training accepts every command on the page."""

from __future__ import annotations

import shlex

import pytest
import typer.main

from tests.docs.page import find_blocks, read_page
from training.__main__ import app

PREFIX = ".venv/bin/python -m training "
LINES = "\n".join(find_blocks(read_page("docs/training.md"), "sh")).splitlines()
COMMANDS = [line.removeprefix(PREFIX) for line in LINES if line.startswith(PREFIX)]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command: str) -> None:
    """The command exists and accepts these arguments and options."""
    name, *words = shlex.split(command)
    group = typer.main.get_command(app)
    with group.make_context("training", [name, *words]) as context:
        found = group.get_command(context, name)  # type: ignore[attr-defined]  # it is a group
        with found.make_context(name, words, parent=context) as parsed:
            assert parsed.args == []
