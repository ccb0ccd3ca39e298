"""Finds the proxy that the environment names for a URL."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.request import getproxies

import httpx2

from service.client.errors import UsageError

SCHEMES = ("http", "https", "socks5", "socks5h")


def find_proxy(url: httpx2.URL) -> httpx2.Proxy | None:
    """Return the proxy for ``url``, from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

    This machine itself is never reached through a proxy. httpx2 reads the variables too, but
    raises an error for each entry that it does not understand, even if the URL does not need it.

    Raises:
        UsageError: The client cannot use the proxy.
    """
    named = getproxies()
    proxy = named.get(url.scheme) or named.get("all")
    if not proxy or _is_this_machine(url.host):
        return None
    if any(_covers(entry, url) for entry in named.get("no", "").replace(",", " ").split()):
        return None
    return _parse_proxy(proxy, url.host)


def _parse_proxy(text: str, host: str) -> httpx2.Proxy:
    text = text.strip() if "://" in text else f"http://{text.strip()}"
    scheme, rest = text.split("://", 1)
    scheme = {"socks": "socks5"}.get(scheme.lower(), scheme.lower())
    # The messages do not show the proxy's URL, because it may hold a password.
    remedy = f"set NO_PROXY={host} to connect without a proxy"
    if scheme not in SCHEMES:
        raise UsageError(
            f"the environment names a proxy with the scheme {scheme!r}; "
            f"{', '.join(SCHEMES)} are allowed; {remedy}"
        )
    if scheme.startswith("socks") and find_spec("socksio") is None:
        raise UsageError(
            "the environment names a SOCKS proxy, which needs a package that is not installed: "
            f"socksio. Run: pip install socksio, or {remedy}"
        )
    try:
        proxy = httpx2.Proxy(f"{scheme}://{rest}")
        if not re.fullmatch(r"[\w.-]+|[0-9a-f:]+(%\w+)?", proxy.url.host):
            raise ValueError("no host")
    except (httpx2.InvalidURL, ValueError) as error:
        raise UsageError(f"the environment names a proxy that is not a URL; {remedy}") from error
    return proxy


def _is_this_machine(host: str) -> bool:
    address = _parse_address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified


def _covers(entry: str, url: httpx2.URL) -> bool:
    """Say whether an entry of NO_PROXY covers the URL: a name, an address or a network."""
    if entry == "*":
        return True
    address = _parse_address(url.host)
    for host in _without_port(entry.lower(), url):
        try:
            network = ip_network(host.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            name = host.lstrip("*.")
            if name and address is None and f".{url.host}".endswith(f".{name}"):
                return True
        else:
            if address is not None and address in network:
                return True
    return False


def _without_port(entry: str, url: httpx2.URL) -> Iterable[str]:
    """Yield the host of an entry. ``fd00::1`` has no port, although a number follows a colon."""
    yield entry
    host, _, port = entry.rpartition(":")
    if port == str(url.port or {"http": 80, "https": 443}[url.scheme]):
        yield host


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
