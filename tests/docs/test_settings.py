"""docs/settings.md: the settings, commands and API keys as the service has them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.server.configuration import read_configuration
from service.settings import Settings
from tests.docs.page import find_blocks, find_code, find_table, read_page
from tests.e2e.server import ROOT

PAGE = read_page("docs/settings.md")


def test_table_has_every_setting() -> None:
    """The table has each setting with its default and description, and no other."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `SERVICE_")]
    fields = Settings.model_fields
    # A setting without a description is a former name.
    assert rows == [settings_row(name) for name in fields if fields[name].description]


def settings_row(name: str) -> str:
    """Render the table's row for a setting."""
    field = Settings.model_fields[name]
    default = field.default
    if name == "models":
        default = ",".join(folder.relative_to(ROOT).as_posix() for folder in default)
    if default is True:
        default = "on"
    shown = "" if default in (None, ()) else f"`{default}`"
    return f"| `SERVICE_{name.upper()}` | {shown} | {field.description} |"


def test_ways_to_set_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables, the options and the file that the page shows give the same settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fashion.toml").write_text(find_blocks(PAGE, "toml")[0])
    read = []
    for line in find_blocks(PAGE, "sh")[0].splitlines():
        variables, _, words = line.partition(".venv/bin/python -m service serve")
        for variable in variables.split():
            monkeypatch.setenv(*variable.split("=", 1))
        pairs = zip(words.split()[::2], words.split()[1::2], strict=True)
        options = {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}
        read.append(read_configuration(options).settings.model_copy(update={"config": None}))
        for variable in variables.split():
            monkeypatch.delenv(variable.split("=")[0])
    assert len(read) == 3
    assert read == [Settings(port=9000, log_level="warning")] * 3


def test_table_has_every_command() -> None:
    """The table of commands has each command of `python -m service`, and no other."""
    named = {find_code(row[0])[0].split()[3] for row in find_table(PAGE, "command")}
    output = subprocess.run(
        [sys.executable, "-m", "service", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    commands = re.search(r"\{([a-z,]+)\}", output.stdout)
    assert commands is not None
    assert named == set(commands[1].split(","))


def test_key_is_printed_once_and_its_line_is_written() -> None:
    """`key NAME` prints the key on standard error and the line for the file on standard output."""
    command = [sys.executable, "-m", "service", "key", "alice"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"alice:[0-9a-f]{64}\n", output.stdout)
    assert "alice" in output.stderr
