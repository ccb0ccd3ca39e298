"""The listening sockets: IPv4, IPv6 and both."""

from __future__ import annotations

import socket

import pytest

from service.errors import AddressError
from service.server.listening import listen
from service.settings import Settings


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("host", "reachable"),
    [
        ("::", ["127.0.0.1", "::1"]),
        ("::1", ["::1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),  # noqa: S104  the test closes it at once
        ("localhost", ["127.0.0.1"]),
    ],
)
def test_addresses_that_a_host_serves(host: str, reachable: list[str], count: int) -> None:
    """``::`` is reachable over IPv6 and IPv4, an address only over itself."""
    listening = listen(Settings(host=host, port=0), count)
    port = listening[0].getsockname()[1]
    try:
        for address in ("127.0.0.1", "::1"):
            assert can_connect(address, port) == (address in reachable)
    finally:
        for each in listening:
            each.close()


def can_connect(address: str, port: int) -> bool:
    """Say whether something listens there."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "host", ["a..b", "x" * 70, "no.such.host.invalid", "http://x", "300.1.1.1"]
)
def test_host_that_does_not_exist_is_rejected(host: str) -> None:
    """A host that is no address of this machine is an AddressError that says what to set."""
    with pytest.raises(AddressError, match=r"cannot listen on .* set SERVICE_HOST to an address"):
        listen(Settings(host=host, port=0))


def test_taken_port_is_rejected() -> None:
    """A port that another program uses is an AddressError that says what to set."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AddressError, match=f":{port} .* set another SERVICE_PORT"):
            listen(Settings(port=port))
