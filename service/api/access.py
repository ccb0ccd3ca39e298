"""Who may send requests: host names, API keys, CORS and the security headers for browsers.

``/health`` and ``/v2/health`` accept any host and need no key, because a health probe knows neither
a host name nor a key. The page at ``/``, ``/docs`` and
``/openapi.json`` need no key.
"""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.keys import KeyRing
from service.api.problems import problem_response
from service.api.quota import RateLimit, TokenBuckets
from service.errors import UnknownHostError, UnknownKeyError
from service.settings import Settings

HEALTH = ("/health", "/v2/health")
PAGE = "/"
WITHOUT_KEY = (*HEALTH, "/page", "/docs", "/openapi.json")

CORS_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Inference-Header-Content-Length",
    "X-API-Key",
    "X-Request-ID",
    "X-Shape",
)
CORS_RESPONSE_HEADERS = (
    "Inference-Header-Content-Length",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "X-Request-ID",
)

# A name or an IP address in brackets, then an optional port (RFC 3986, section 3.2).
HOST = re.compile(r"(?P<name>[\w.~%!$&'()*+,;=-]+|\[[0-9A-Fa-f.:]+\])(:[0-9]+)?", re.ASCII)

# The pages / and /docs load only files of this service and run no inline script or style. Images
# may be data: (answers and Swagger UI's icons) and blob: (files that a person has chosen).
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
PAGE_HEADERS = ((b"content-security-policy", PAGE_POLICY.encode()),)


def install(app: FastAPI, settings: Settings, shared_folder: Path | None = None) -> None:
    """Add the middleware that ``settings`` ask for.

    ``Observe`` must be outside it, because a rejection contains the request id. Several workers
    share their rate limits in ``shared_folder``.

    Raises:
        KeysFileError: See ``KeyRing``.
    """
    # The middleware added last is the outermost. CORS is outside RequireKey, because a browser's
    # preflight request has no key, and a web page must be able to read a 401.
    if settings.rate_limit_per_minute is not None:
        buckets = TokenBuckets(settings.rate_limit_per_minute, shared_folder)
        app.add_middleware(RateLimit, buckets=buckets)
    if settings.api_keys_file is not None:
        app.add_middleware(RequireKey, keys=KeyRing(settings.api_keys_file))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_RESPONSE_HEADERS,
        )
    if settings.allowed_hosts:
        app.add_middleware(AllowedHosts, allowed_hosts=settings.allowed_hosts)


class AllowedHosts:
    """Reject requests whose ``Host`` header is not in ``allowed_hosts``, except for ``HEALTH``."""

    def __init__(self, app: ASGIApp, allowed_hosts: tuple[str, ...]) -> None:
        self.app = app
        self.allowed_hosts = tuple(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or _is_below(scope["path"], *HEALTH):
            await self.app(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        if is_allowed_host(host, self.allowed_hosts):
            await self.app(scope, receive, send)
            return
        error = UnknownHostError(
            f"the Host header {host[:100]!r} is not a name of this service; use one of its names"
        )
        await problem_response(scope, error)(scope, receive, send)


def is_allowed_host(host: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a ``Host`` header matches one of ``patterns``, which are in lower case.

    ``*`` matches every header, even an empty one. ``*.example.org`` matches every name below
    ``example.org``. Case and port are ignored. Starlette's TrustedHostMiddleware has the same
    rules.
    """
    match = HOST.fullmatch(host)
    name = match["name"].lower() if match else ""
    suffixes = tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))
    return "*" in patterns or name in patterns or name.endswith(suffixes)


class RequireKey:
    """Reject requests without a known API key, from ``Authorization`` or ``X-API-Key``."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection; its state gets the name of the key's owner as ``client``."""
        if scope["type"] != "http" or not needs_key(scope["path"]):
            await self.app(scope, receive, send)
            return
        key = _read_key(Headers(scope=scope))
        owner = self.keys.owner(key) if key else None
        if owner is None:
            received = "an unknown API key" if key else "no API key"
            error = UnknownKeyError(
                f"the request has {received}; "
                "send yours as Authorization: Bearer KEY or X-API-Key: KEY"
            )
            await problem_response(scope, error)(scope, receive, send)
            return
        scope["state"]["client"] = owner
        await self.app(scope, receive, send)


def _read_key(headers: Headers) -> str:
    """Return the key that a request sends, or an empty string."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")


class SecurityHeaders:
    """Add headers that forbid browsers to guess content types or to run foreign code on a page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                content_type = Headers(raw=message["headers"]).get("content-type", "")
                page_headers = PAGE_HEADERS if content_type.startswith("text/html") else ()
                message["headers"] = [*message["headers"], *SECURITY_HEADERS, *page_headers]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def needs_key(path: str) -> bool:
    """Say whether ``path`` needs an API key if the service uses keys."""
    return path != PAGE and not _is_below(path, *WITHOUT_KEY)


def _is_below(path: str, *parents: str) -> bool:
    return any(path == parent or path.startswith(parent + "/") for parent in parents)
