"""The proxy that the environment names."""

from __future__ import annotations

import os

import httpx2
import pytest

from service.client import AsyncClient, Client, UsageError
from service.client.proxies import find_proxy

SHOP = "http://shop.example:8000"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxies of the machine that runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def proxy_of(url: str) -> str | None:
    """Return the URL of the proxy for a URL."""
    proxy = find_proxy(httpx2.URL(url))
    return str(proxy.url) if proxy else None


def test_no_proxy_is_named() -> None:
    """Without the variables there is no proxy."""
    assert proxy_of(SHOP) is None


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", ["http://proxy:3128", "proxy:3128", "http://me:pass@proxy:3128"])
def test_proxy_is_used(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy with or without a scheme is used for other machines."""
    monkeypatch.setenv(name, value)
    assert proxy_of(SHOP) == "http://proxy:3128"


def test_scheme_has_its_own_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and HTTPS_PROXY come before ALL_PROXY, each for its own scheme."""
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:1")
    monkeypatch.setenv("ALL_PROXY", "http://all:1")
    assert proxy_of("https://shop.example") == "http://secure:1"
    assert proxy_of(SHOP) == "http://all:1"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "localhost", "a.localhost", "[::1]", "[::]"]
)
@pytest.mark.parametrize("proxy", ["http://proxy:1", "socks5://proxy:1", "nonsense://", "http://["])
def test_this_machine_needs_no_proxy(
    host: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine is never reached through a proxy, and a bad proxy does not matter for it."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert proxy_of(f"http://{host}:8000") is None


@pytest.mark.parametrize(
    ("exempt", "host", "is_covered"),
    [
        ("*", "shop.example", True),
        ("shop.example", "shop.example", True),
        ("example", "shop.example", True),
        (".example", "shop.example", True),
        ("*.example", "shop.example", True),
        ("other, SHOP.example", "shop.example", True),
        ("other shop.example", "shop.example", True),
        ("shop.example:8000", "shop.example", True),
        ("shop.example:9000", "shop.example", False),
        ("op.example", "shop.example", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.3:8000", "10.1.2.3", True),
        ("11.0.0.0/8", "10.1.2.3", False),
        ("fd00::/8", "[fd00::7]", True),
        ("[fd00::]/8", "[fd00::7]", True),
        ("fe80::/10,fd00::/8", "[fd00::7]", True),
        ("fd00::7", "[fd00::7]", True),
        ("[fd00::7]", "[fd00::7]", True),
        ("[fd00::7]:8000", "[fd00::7]", True),
        ("fe80::/10", "[fd00::7]", False),
        ("fe80::/10", "shop.example", False),
        ("fd00::/999,http://x,[,::,", "shop.example", False),
        ("", "shop.example", False),
    ],
)
def test_no_proxy_covers_names_addresses_and_networks(
    exempt: str, host: str, is_covered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of NO_PROXY is a name, an address or a network; other entries are ignored."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert (proxy_of(f"http://{host}:8000") is None) == is_covered


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("socks5://user:secret@proxy:1080", "socksio"),
        ("socks://user:secret@proxy:1080", "socksio"),
        ("socks4://user:secret@proxy:1080", "'socks4'"),
        ("ftp://user:secret@proxy:21", "'ftp'"),
        ("http://user:secret@proxy:port", "not a URL"),
        ("http://[secret", "not a URL"),
    ],
)
def test_proxy_that_cannot_be_used_is_an_error(
    kind: type[Client] | type[AsyncClient],
    proxy: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says what is wrong and what to do, without the proxy's password."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UsageError) as caught:
        kind(SHOP)
    assert reason in str(caught.value)
    assert "NO_PROXY=shop.example" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_certificates_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of certificates that does not exist is a UsageError."""
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        Client("https://shop.example")


@pytest.mark.parametrize("key", ["käse", "two words", "line\nbreak"])
def test_key_that_no_header_can_hold_is_an_error(key: str) -> None:
    """An API key with a space, a line break or a letter beyond ASCII is a UsageError."""
    with pytest.raises(UsageError, match="API key"):
        Client(SHOP, key)
