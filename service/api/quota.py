"""Own how often a client may ask: token buckets, and the answers that tell of them, as pure ASGI."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import QuotaExceededError

MINUTE_NS = 60 * 10**9
MAX_BUCKETS = 20_000  # about 5 MB


@dataclass(frozen=True)
class Quota:
    """What a bucket said: whether the request is admitted, how many more are, and when there is one more."""

    admitted: bool
    remaining: int
    seconds_to_next: int


class TokenBuckets:
    """A token bucket a client: it holds ``per_minute`` requests at most, and gains as many a minute.

    A bucket is kept as the time when it is full again, in units of ``1 / per_minute`` ns, so that one request is
    exactly ``MINUTE_NS`` of them. One that is full is as good as none, so it is dropped: those of the last minute
    remain, and of those ``MAX_BUCKETS``. Who owns more addresses than that needs no refilled bucket to be a nuisance.
    """

    def __init__(self, per_minute: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.per_minute = per_minute
        self._clock_ns = clock_ns
        self._full_at: OrderedDict[str, int] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, client: str) -> Quota:
        """Take one request of the bucket of ``client``, if there is one."""
        now = self._clock_ns() * self.per_minute
        level = self.per_minute * MINUTE_NS - max(self._full_at.pop(client, now) - now, 0)
        admitted = level >= MINUTE_NS
        if admitted:
            level -= MINUTE_NS
        self._full_at[client] = now + self.per_minute * MINUTE_NS - level
        self._drop_full(now)
        remaining, part = divmod(level, MINUTE_NS)
        return Quota(admitted, remaining, -((part - MINUTE_NS) // (self.per_minute * 10**9)))

    def _drop_full(self, now: int) -> None:
        # The one that was used just now is not full, so this ends.
        while next(iter(self._full_at.values())) <= now or len(self._full_at) > MAX_BUCKETS:
            self._full_at.popitem(last=False)


class RateLimit:
    """Limit the POST requests of each API key, or of each address where there are no keys.

    The headers are those of draft-ietf-httpapi-ratelimit-headers-11.
    """

    def __init__(self, app: ASGIApp, buckets: TokenBuckets) -> None:
        self.app = app
        self.buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        quota = self.buckets.take(scope["state"].get("client") or _network(scope))

        async def send_with_quota(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = f'"default";q={self.buckets.per_minute};w=60'
                headers["RateLimit"] = f'"default";r={quota.remaining};t={quota.seconds_to_next}'
            await send(message)

        if quota.admitted:
            await self.app(scope, receive, send_with_quota)
        else:
            seconds = quota.seconds_to_next
            error = QuotaExceededError(
                f"more than {self.buckets.per_minute} requests a minute; try again in {seconds} s",
                seconds,
            )
            await problem_response(scope, error)(scope, receive, send_with_quota)


def _network(scope: Scope) -> str:
    """Return the client's address; of IPv6 its first 64 bits, for one client has all addresses below."""
    host: str = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
