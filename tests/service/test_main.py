"""``python -m service health`` against services and other programs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from tests.e2e.server import ROOT

DRAINING = json.dumps({"status": "draining"}).encode()
HEAD = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(DRAINING)


@contextmanager
def answering(answer: bytes, host: str) -> Iterator[int]:
    """Listen on ``host`` and give ``answer`` to one client; yield the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        listening.settimeout(30)

        def answer_one() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = Thread(target=answer_one)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def ask_for_health(port: int, host: str = "127.0.0.1") -> subprocess.CompletedProcess[str]:
    """Run the command."""
    environment = os.environ | {"SERVICE_HOST": host, "SERVICE_PORT": str(port)}
    command = [sys.executable, "-m", "service", "health"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_body_of_a_service_that_is_not_ready_is_printed(host: str) -> None:
    """A 503 is printed with its body, over IPv4 and IPv6; the exit code is 1."""
    answer = b"HTTP/1.1 503 Service Unavailable\r\n" + HEAD + DRAINING
    with answering(answer, host) as port:
        run = ask_for_health(port, host)
    assert (run.returncode, run.stdout) == (1, "")
    assert json.loads(run.stderr) == {"status": "draining"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhello",
        b"HTTP/1.1 \r\n\r\n",
    ],
)
def test_another_program_on_the_port_is_no_traceback(answer: bytes) -> None:
    """If another program answers on the port, the command prints one line and exits with 1."""
    with answering(answer, "127.0.0.1") as port:
        run = ask_for_health(port)
    assert (run.returncode, run.stdout) == (1, "")
    assert len(run.stderr.splitlines()) == 1
    assert f"http://127.0.0.1:{port}/health: " in run.stderr


def test_health_command_uses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is on this machine, so a proxy in the environment is passed over."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    answer = b"HTTP/1.1 503 Service Unavailable\r\n" + HEAD + DRAINING
    with answering(answer, "127.0.0.1") as port:
        run = ask_for_health(port)
    assert json.loads(run.stderr) == {"status": "draining"}
