"""How many uploads a client may send: token buckets, and the middleware that applies them."""

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
MAX_BUCKETS = 20_000  # they take about 5 MB


@dataclass(frozen=True)
class Quota:
    """Whether a request is admitted, how many more may follow, and when the next token comes."""

    admitted: bool
    remaining: int
    seconds_to_next: int


class TokenBuckets:
    """One token bucket for each client. It holds up to ``per_minute`` tokens; a request takes one.

    An empty bucket is full again after a minute. A bucket is stored as the time when it will be
    full, in units of ``1 / per_minute`` ns: one token is exactly ``MINUTE_NS`` units. A full bucket
    carries no information and is dropped. At most ``MAX_BUCKETS`` are kept, the last used ones.
    """

    def __init__(self, per_minute: int, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.per_minute = per_minute
        self._clock_ns = clock_ns
        self._full_at: OrderedDict[str, int] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, client: str) -> Quota:
        """Take one token out of the bucket of ``client``, if it has one."""
        now = self._clock_ns() * self.per_minute
        missing = max(self._full_at.pop(client, now) - now, 0)
        admitted = missing <= (self.per_minute - 1) * MINUTE_NS
        if admitted:
            missing += MINUTE_NS
        self._full_at[client] = now + missing
        self._evict(now)
        remaining, part = divmod(self.per_minute * MINUTE_NS - missing, MINUTE_NS)
        seconds_to_next = -(-(MINUTE_NS - part) // (self.per_minute * 10**9))  # rounded up
        return Quota(admitted, remaining, seconds_to_next)

    def _evict(self, now: int) -> None:
        # The loop ends at the latest at the bucket that was just used: it is not full.
        while next(iter(self._full_at.values())) <= now or len(self._full_at) > MAX_BUCKETS:
            self._full_at.popitem(last=False)


class RateLimit:
    """Limit the POST requests of each API key, or of each address if the service uses no keys.

    Every response to a POST has the headers of draft-ietf-httpapi-ratelimit-headers-11.
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
                f"the limit of {self.buckets.per_minute} uploads per minute is reached; "
                f"try again in {seconds} s",
                seconds,
            )
            await problem_response(scope, error)(scope, receive, send_with_quota)


def _network(scope: Scope) -> str:
    """Return the client's IPv4 address, or its IPv6 /64 network, which belongs to one client."""
    host: str = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
