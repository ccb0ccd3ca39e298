"""Who may send requests: host names, API keys, CORS and the headers for browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from service.api.access import is_allowed_host
from service.api.keys import new_key
from service.app import create_app
from service.errors import KeysFileError
from service.settings import Settings
from tests.service.api.test_predict import IMAGE, assert_problem, post
from tests.service.conftest import wait_until_ready

KEY, LINE = new_key("alice")
OTHER_KEY, OTHER_LINE = new_key("bob")


@pytest.fixture
def guarded(tmp_path: Path, linear_folder: Path) -> Iterator[TestClient]:
    """Client that sends no key to an application with two keys, hosts and a CORS origin."""
    path = tmp_path / "keys"
    path.write_text(f"{LINE}\n{OTHER_LINE}")
    settings = Settings(
        models=(linear_folder,),
        device="cpu",
        api_keys_file=path,
        rate_limit_per_minute=100,
        cors_origins=("https://shop.example",),
        allowed_hosts=("testserver", "*.example.org", "[::1]"),
    )
    with TestClient(create_app(settings)) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY}],
)
def test_key_is_accepted_in_both_headers(guarded: TestClient, headers: dict[str, str]) -> None:
    """A known key is accepted in both headers, for uploads and for metrics."""
    assert guarded.post("/predict", files={"file": IMAGE}, headers=headers).status_code == 200
    assert guarded.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"X-API-Key": "\xff"},
        {"X-API-Key": LINE},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY} {KEY}"},
    ],
)
def test_nothing_is_answered_without_a_key(guarded: TestClient, headers: dict[str, str]) -> None:
    """Without a known key, every path that needs one answers 401; no detail shows a key."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    for method, path in (
        ("POST", "/predict"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
        ("GET", "/healthy"),
        ("GET", "/pages"),
        ("GET", "http://testserver//models"),
    ):
        response = guarded.request(method, path, headers=raw)
        detail = assert_problem(response, 401, "unknown-key")["detail"]
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in detail


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/page/page.js",
        "/health",
        "/health/ready",
        "/health/live",
        "/v2/health/ready",
        "/docs",
        "/docs/start.js",
        "/openapi.json",
    ],
)
def test_pages_and_health_need_no_key(guarded: TestClient, path: str) -> None:
    """Page, health and documentation are answered without a key."""
    assert guarded.get(path).status_code == 200


def test_request_without_a_key_uses_no_quota(guarded: TestClient) -> None:
    """A request without a key takes nothing from a key's quota; its answer has no RateLimit."""
    assert "ratelimit" not in post(guarded, IMAGE).headers
    answer = guarded.post("/predict", files={"file": IMAGE}, headers={"X-API-Key": KEY})
    assert answer.headers["ratelimit"].startswith('"default";r=99;')


def test_each_key_has_its_own_quota(guarded: TestClient) -> None:
    """Two keys that are used from one address have a bucket each."""
    left = [
        guarded.post("/predict", files={"file": IMAGE}, headers={"X-API-Key": key}).headers
        for key in (KEY, KEY, OTHER_KEY)
    ]
    assert [headers["ratelimit"].split(";")[1] for headers in left] == ["r=99", "r=98", "r=99"]


def test_broken_file_of_keys_prevents_the_start(tmp_path: Path) -> None:
    """Without its file of keys, an application does not start: it would be open to everybody."""
    with pytest.raises(KeysFileError, match="keys"):
        create_app(Settings(api_keys_file=tmp_path / "keys"))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("testserver", 200),
        ("TestServer:8000", 200),
        ("a.example.org", 200),
        ("[::1]:8000", 200),
        ("example.org", 400),
        ("evil.example", 400),
        ("testserver.evil.example", 400),
        ("testserver@evil.example", 400),
        ("", 400),
    ],
)
def test_only_our_hosts_are_answered(guarded: TestClient, host: str, status: int) -> None:
    """A request for another host gets 400, with or without a key; health accepts any host."""
    response = guarded.get("/metrics", headers={"Host": host, "X-API-Key": KEY})
    assert response.status_code == status
    if status == 400:
        assert_problem(response, 400, "unknown-host")
        assert_problem(guarded.get("/metrics", headers={"Host": host}), 400, "unknown-host")
    for path in ("/health", "/v2/health/ready"):
        assert guarded.get(path, headers={"Host": host}).status_code == 200


def test_request_without_a_host_is_rejected(guarded: TestClient) -> None:
    """A request without a Host header, as in HTTP/1.0, is rejected, except for /health."""
    assert asyncio.run(status_without_host(guarded.app, "/metrics")) == 400
    assert asyncio.run(status_without_host(guarded.app, "/health/live")) == 200


async def status_without_host(app: ASGIApp, path: str) -> int:
    """Send GET ``path`` without any header, and return the status."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return statuses[0]


NAMES = ("example.org", "a.example.org", "*.example.org", "EXAMPLE.org", "[::1]", "[::2]", "*")
HOSTS = st.one_of(
    st.lists(
        st.sampled_from([*NAMES, "evil", ".", ":", "8000", "@", "/", "#", "\xff", "[", "]", " "]),
        max_size=4,
    ).map("".join),
    st.text(st.characters(max_codepoint=255), max_size=12),
)


@given(host=st.none() | HOSTS, allowed=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
def test_hosts_match_as_in_starlette(host: str | None, allowed: list[str]) -> None:
    """A Host header, or none, is allowed if and only if Starlette's middleware allows it."""
    passed: list[bool] = []

    async def app(*_: object) -> None:
        passed.append(True)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(_: Message) -> None:
        pass

    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(TrustedHostMiddleware(app, allowed, www_redirect=False)(scope, receive, send))
    patterns = tuple(pattern.lower() for pattern in allowed)
    assert is_allowed_host(host or "", patterns) == bool(passed)


def test_pages_of_listed_origins_may_send_requests(guarded: TestClient) -> None:
    """Pages of a listed origin may send a key and read every answer, even a 401."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    for origin, allowed in (
        ("https://shop.example", "https://shop.example"),
        ("https://evil.example", None),
    ):
        preflight = guarded.options("/predict", headers={"Origin": origin, **asked})
        rejected = guarded.post("/predict", headers={"Origin": origin})
        assert preflight.status_code == (200 if allowed else 400)
        for response in (preflight, rejected):
            assert response.headers.get("access-control-allow-origin") == allowed


def test_pages_may_read_our_headers(guarded: TestClient) -> None:
    """A page of a listed origin may send and read exactly these headers beyond the usual ones."""
    origin = {"Origin": "https://shop.example"}
    exposed = guarded.get("/health", headers=origin).headers["access-control-expose-headers"]
    assert exposed.split(", ") == [
        "Inference-Header-Content-Length",
        *("RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "X-Request-ID"),
    ]
    preflight = guarded.options(
        "/predict", headers=origin | {"Access-Control-Request-Method": "GET"}
    )
    assert set(preflight.headers["access-control-allow-headers"].split(", ")) == {
        *("Accept", "Accept-Language", "Content-Language"),  # the usual ones
        *("Authorization", "Content-Type", "Inference-Header-Content-Length"),
        *("X-API-Key", "X-Request-ID", "X-Shape"),
    }
    assert preflight.headers["access-control-allow-methods"] == "GET, POST"


def test_no_origin_may_send_requests_by_default(linear: TestClient) -> None:
    """Without origins in the settings no answer has a CORS header."""
    for response in (
        linear.get("/health", headers={"Origin": "https://a.example"}),
        linear.options("/predict"),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/health", "/docs", "/nowhere", "/metrics"])
def test_every_answer_has_the_headers_for_browsers(linear: TestClient, path: str) -> None:
    """Every answer, even an error, forbids to guess its type and to tell its address to others."""
    headers = linear.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_only_pages_have_a_policy(linear: TestClient) -> None:
    """The content security policy is only in the heads of HTML pages."""
    assert "content-security-policy" not in linear.get("/openapi.json").headers


def test_lists_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas separate the items of a list; a list may be empty."""
    monkeypatch.setenv("SERVICE_CORS_ORIGINS", "https://a.example, http://localhost:3000,")
    monkeypatch.setenv("SERVICE_ALLOWED_HOSTS", "")
    settings = Settings()
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert settings.allowed_hosts == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORS_ORIGINS", "a.example"),
        ("CORS_ORIGINS", "https://a.example/"),
        ("ALLOWED_HOSTS", "*a"),
    ],
)
def test_list_that_could_never_match_is_rejected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """An origin with a path or without a scheme, or a wrong wildcard, is an error at the start."""
    monkeypatch.setenv(f"SERVICE_{name}", value)
    with pytest.raises(ValidationError, match="pattern"):
        Settings()


def test_key_header_goes_before_a_proxy_s_own(tmp_path: Path) -> None:
    """A proxy may send an Authorization of its own; the client's X-API-Key counts."""
    (tmp_path / "keys").write_text(LINE)
    client = TestClient(create_app(Settings(device="cpu", api_keys_file=tmp_path / "keys")))
    both = {"X-API-Key": KEY, "Authorization": "Bearer of-the-proxy"}
    assert client.get("/metrics", headers=both).status_code == 200


def test_allowed_host_may_have_capitals() -> None:
    """Host names have no case, neither in the setting nor in the request."""
    client = TestClient(create_app(Settings(device="cpu", allowed_hosts=("Shop.Example",))))
    for host in ("shop.example", "SHOP.example"):
        assert client.get("/docs", headers={"Host": host}).status_code == 200
