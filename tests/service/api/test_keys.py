"""The file of API keys."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.keys import CHECK_INTERVAL_SECONDS, KeyRing, new_key
from service.errors import KeysFileError

ROOT = Path(__file__).parents[3]


class Clock:
    """A clock that only moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now

    def move(self) -> None:
        """Move the clock so far that the file is checked again."""
        self.now += CHECK_INTERVAL_SECONDS


def test_each_key_has_its_owner(tmp_path: Path) -> None:
    """Comments and blank lines are ignored; a name may have several keys; no key is in the file."""
    (alice, alice_line), (second, second_line), (bob, bob_line) = (
        new_key("alice"),
        new_key("alice"),
        new_key("bob"),
    )
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\n\n{alice_line}\n  {second_line}  \n{bob_line}")
    keys = KeyRing(path)
    assert [keys.owner(key) for key in (alice, second, bob)] == ["alice", "alice", "bob"]
    assert len({alice, second, bob}) == 3
    assert alice not in path.read_text()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_file_of_an_editor_on_windows_is_read(tmp_path: Path, encoding: str, line_end: str) -> None:
    """A byte order mark, UTF-16 (PowerShell's ``>``) and CRLF change no key."""
    (alice, alice_line), (bob, bob_line) = new_key("alice"), new_key("bob")
    path = tmp_path / "keys"
    path.write_bytes(line_end.join([alice_line, "# é", bob_line, ""]).encode(encoding))
    keys = KeyRing(path)
    assert [keys.owner(key) for key in (alice, bob)] == ["alice", "bob"]


@pytest.mark.parametrize("content", [b"\xff\xfea", b"\xff", b"\xfe\xff\xd8\x00"])
def test_file_that_is_no_text_is_an_error(tmp_path: Path, content: bytes) -> None:
    """A file in no known encoding is a KeysFileError."""
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(KeysFileError):
        KeyRing(path)


@given(key=st.text())
def test_any_other_text_has_no_owner(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    """Only the key itself is accepted: no part of it, not its hash, not its line."""
    alice, line = new_key("alice")
    path = tmp_path_factory.getbasetemp() / "some-keys"
    path.write_text(line)
    keys = KeyRing(path)
    for wrong in (key, alice[:-1], alice + key + " ", line, line.split(":")[1], "alice"):
        assert keys.owner(wrong) is None


def test_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """After a second, an added key is valid and a removed key is not; before, nothing changes."""
    (alice, alice_line), (bob, bob_line) = new_key("alice"), new_key("bob")
    path, clock = tmp_path / "keys", Clock()
    path.write_text(alice_line)
    keys = KeyRing(path, clock)
    path.write_text(f"{alice_line}\n{bob_line}")
    assert keys.owner(bob) is None
    clock.move()
    assert keys.owner(bob) == "bob"
    path.write_text("# nobody")
    clock.move()
    assert (keys.owner(alice), keys.owner(bob)) == (None, None)


def test_file_rewritten_in_place_with_the_same_size_is_read(tmp_path: Path) -> None:
    """A file of the same size is read again if only its time differs."""
    (alice, alice_line), (_, other_line) = new_key("alice"), new_key("alice")
    path, clock = tmp_path / "keys", Clock()
    path.write_text(other_line)
    os.utime(path, (1, 1))
    keys = KeyRing(path, clock)
    before = path.stat()
    path.write_text(alice_line)
    os.utime(path, (1, 2))
    after = path.stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)
    clock.move()
    assert keys.owner(alice) == "alice"


def test_file_replaced_by_one_of_the_same_size_and_time_is_read(tmp_path: Path) -> None:
    """A file that is moved over the old one is read, even if size and time are the same."""
    (alice, alice_line), (_, other_line) = new_key("alice"), new_key("alice")
    path, new, clock = tmp_path / "keys", tmp_path / "new", Clock()
    for file, line in ((path, other_line), (new, alice_line)):
        file.write_text(line)
        os.utime(file, (1, 1))
    keys = KeyRing(path, clock)
    new.replace(path)
    clock.move()
    assert keys.owner(alice) == "alice"


@pytest.mark.parametrize(
    "damage", ["alice:abc", "no colon", "alice:" + "g" * 64, ":" + "0" * 64, "missing", "binary"]
)
def test_broken_file_prevents_the_start_but_not_the_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """The error has a broken line's number but not its text; a running service keeps its keys."""
    alice, line = new_key("alice")
    path, clock = tmp_path / "keys", Clock()
    path.write_text(line)
    keys = KeyRing(path, clock)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"\xff\xfd" if damage == "binary" else f"{line}\n\n{damage}\n".encode())
    clock.move()
    with caplog.at_level(logging.ERROR, "service.api.keys"):
        assert keys.owner(alice) == "alice"
        clock.move()
        assert keys.owner(alice) == "alice"
    assert len(caplog.records) == 1
    with pytest.raises(
        KeysFileError, match="cannot be read" if damage in ("missing", "binary") else "line 3"
    ) as error:
        KeyRing(path)
    assert caplog.records[0].getMessage().startswith(str(error.value))
    assert damage in ("missing", "binary") or damage not in str(error.value)


def test_command_makes_a_key_that_works(tmp_path: Path) -> None:
    """`python -m service key NAME` prints the line to stdout and the key to stderr."""
    command = [sys.executable, "-m", "service", "key"]
    run = subprocess.run([*command, "alice"], cwd=ROOT, capture_output=True, text=True, check=True)
    path = tmp_path / "keys"
    path.write_text(run.stdout)
    assert KeyRing(path).owner(run.stderr.split()[0]) == "alice"
    wrong = subprocess.run([*command, "a:b"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "'a:b'" in wrong.stderr
