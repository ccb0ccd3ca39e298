"""How many images a client may send: token buckets, and the middleware that applies them."""

from __future__ import annotations

import fcntl
import ipaddress
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from struct import Struct

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import QuotaExceededError, UploadTooLargeError

MINUTE_NS = 60 * 10**9
SECOND_NS = 10**9

BUCKET = Struct("<Qq")  # the hash of a client, and the nanosecond at which its bucket is full
BUCKETS_OF_A_ROW = 8
ROW_BYTES = BUCKETS_OF_A_ROW * BUCKET.size
ROWS = 4096
MAX_BUCKETS = ROWS * BUCKETS_OF_A_ROW  # 512 KiB


@dataclass(frozen=True)
class Quota:
    """Whether a request is admitted, and how many nanoseconds of tokens its client has left."""

    admitted: bool
    token_ns: int
    left_ns: int

    @property
    def remaining(self) -> int:
        """Number of tokens left."""
        return self.left_ns // self.token_ns

    def seconds_to(self, tokens: int) -> int:
        """Return the seconds until the bucket holds ``tokens``, rounded up."""
        return max(0, -(-(tokens * self.token_ns - self.left_ns) // SECOND_NS))


class TokenBuckets:
    """One token bucket for each client. It holds up to ``per_minute`` tokens; an image takes one.

    An empty bucket is full again after a minute. A bucket is stored as the time when it will be
    full. The hash of a client chooses a row, and a new client takes the place of the row's fullest
    bucket, which carries the least information. Several processes share the buckets in ``folder``;
    without a folder, this process counts alone.
    """

    def __init__(
        self,
        per_minute: int,
        folder: Path | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,  # the same in all processes of a machine
    ) -> None:
        self.per_minute = per_minute
        self._token_ns = -(-MINUTE_NS // per_minute)
        self._clock_ns = clock_ns
        self._file = None if folder is None else _open(folder / "rate-limit")
        number = -1 if self._file is None else self._file
        self._memory = mmap.mmap(number, ROWS * ROW_BYTES)

    def take(self, client: str, tokens: int = 1) -> Quota:
        """Take ``tokens`` out of the bucket of ``client``, if it holds so many."""
        digest = int.from_bytes(blake2b(client.encode(), digest_size=8).digest(), "little")
        with self._locked():
            now = self._clock_ns()
            place, full_at = self._find(digest)
            left_ns = self.per_minute * self._token_ns - max(full_at - now, 0)
            wanted_ns = tokens * self._token_ns
            if wanted_ns > left_ns:
                return Quota(False, self._token_ns, left_ns)
            BUCKET.pack_into(self._memory, place, digest, max(full_at, now) + wanted_ns)
            return Quota(True, self._token_ns, left_ns - wanted_ns)

    def _find(self, digest: int) -> tuple[int, int]:
        """Return the place of a client's bucket and the time when it will be full."""
        start = digest % ROWS * ROW_BYTES
        row = list(BUCKET.iter_unpack(self._memory[start : start + ROW_BYTES]))
        for number, (owner, full_at) in enumerate(row):
            if owner == digest:
                return start + number * BUCKET.size, full_at
        number = min(range(BUCKETS_OF_A_ROW), key=lambda number: row[number][1])
        return start + number * BUCKET.size, 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep the other processes out; the kernel unlocks if this process is killed."""
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    """Return the file descriptor of the shared buckets; the first process makes the file."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(number, ROWS * ROW_BYTES)
    return number


class Account:
    """What one request takes from its client's bucket."""

    def __init__(self, buckets: TokenBuckets, client: str) -> None:
        self._buckets = buckets
        self._client = client
        self._charged = 0
        self.quota = Quota(False, MINUTE_NS, 0)

    def charge(self, images: int) -> None:
        """Charge for the request's ``images``, less those that are charged already.

        Raises:
            UploadTooLargeError: A full bucket does not hold so many tokens.
            QuotaExceededError: The bucket does not hold so many tokens now.
        """
        limit = self._buckets.per_minute
        if images > limit:
            raise UploadTooLargeError(
                f"the request has {images} images; at most {limit} images per minute are allowed; "
                "send fewer images in a request"
            )
        self.quota = self._buckets.take(self._client, images - self._charged)
        if not self.quota.admitted:
            seconds = self.quota.seconds_to(images)
            raise QuotaExceededError(
                f"{self.quota.remaining} of {limit} images per minute are left; "
                f"try again in {seconds} s",
                seconds,
            )
        self._charged = images


def charge(scope: Scope, images: int) -> None:
    """Charge a request for its number of images, if there is a rate limit.

    Raises:
        UploadTooLargeError, QuotaExceededError: See ``Account.charge``.
    """
    account: Account | None = scope["state"].get("account")
    if account is not None:
        account.charge(images)


class RateLimit:
    """Limit the images of each owner of API keys, or of each address if the service uses no keys.

    Each POST is charged for one image before its body is read. A route that reads more images from
    the body calls ``charge``. Every response to a POST has the headers of
    draft-ietf-httpapi-ratelimit-headers-11.
    """

    def __init__(self, app: ASGIApp, buckets: TokenBuckets) -> None:
        self.app = app
        self.buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        account = Account(self.buckets, scope["state"].get("client") or _network(scope))
        scope["state"]["account"] = account

        async def send_with_quota(message: Message) -> None:
            if message["type"] == "http.response.start":
                quota, limit = account.quota, self.buckets.per_minute
                seconds = quota.seconds_to(quota.remaining + 1)
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = f'"default";q={limit};w=60'
                headers["RateLimit"] = f'"default";r={quota.remaining};t={seconds}'
            await send(message)

        try:
            account.charge(1)
        except QuotaExceededError as error:
            await problem_response(scope, error)(scope, receive, send_with_quota)
            return
        await self.app(scope, receive, send_with_quota)


def _network(scope: Scope) -> str:
    """Return the client's IPv4 address, or its IPv6 /64 network, which belongs to one client."""
    host: str = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
