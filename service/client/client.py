"""The HTTP client, for threads and for asyncio."""

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self

import httpx2
import stamina

from service.client.errors import (
    NoAnswerError,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
    UnreadableFileError,
    UsageError,
)
from service.client.proxies import find_proxy

RETRIED_STATUSES = frozenset({429, 502, 503, 504})  # rate limit, overload, restart, timeout
MAX_CONNECTIONS = 100
LONGEST_BACKOFF_S = 30.0
LONGEST_RETRY_AFTER_S = 300.0  # the client gives up if Retry-After is longer

# stamina logs each retry as a warning. Without a handler, Python prints warnings on stderr.
logging.getLogger("stamina").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Prediction:
    """The service's answer for one image.

    ``probabilities`` maps each class to a value in [0, 1], in the model's label order.
    ``explanation`` is None without ``explain=True``. ``distance`` and ``in_distribution`` are None
    if the model does not measure them.
    """

    class_id: int
    class_name: str
    probability: float
    probabilities: Mapping[str, float]
    model_name: str
    model_version: str
    explanation: Mapping[str, Any] | None = None
    distance: float | None = None
    in_distribution: bool | None = None


@dataclass(eq=False)
class _Caller:
    """The arguments of Client and AsyncClient, and the settings derived from them. Does no I/O."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    retries: int = 5
    backoff_s: float = 0.5
    explain: bool = False
    model: str | None = None

    def _connection(
        self, transport: type[httpx2.HTTPTransport] | type[httpx2.AsyncHTTPTransport]
    ) -> dict[str, Any]:
        """Return the arguments of httpx2's clients."""
        headers = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        if key := _parse_key(self.api_key):
            headers["Authorization"] = f"Bearer {key}"
        url = _parse_url(self.url)
        limits = httpx2.Limits(max_connections=MAX_CONNECTIONS)
        try:
            way = transport(limits=limits, proxy=find_proxy(url))
        except OSError as error:
            raise UsageError(
                f"cannot load the certificates that SSL_CERT_FILE or SSL_CERT_DIR names: {error}"
            ) from error
        return {
            "base_url": url,
            "headers": headers,
            # The wait for a free connection has no limit: the server does not cause it.
            "timeout": httpx2.Timeout(self.timeout_s, pool=None),
            "transport": way,
            "params": self._query,
        }

    @property
    def _query(self) -> dict[str, str]:
        explain = {"explain": "true"} if self.explain else {}
        return explain if self.model is None else explain | {"model": self.model}

    @property
    def _retry_policy(self) -> dict[str, Any]:
        """The arguments of stamina's retrying callers."""
        return {
            "attempts": self.retries + 1,
            "timeout": None,
            "wait_initial": self.backoff_s,
            "wait_max": LONGEST_BACKOFF_S,
            "wait_jitter": self.backoff_s,
        }

    def _decide_retry(self, error: Exception) -> bool | float:
        """Return False for no retry, True for stamina's backoff, or the seconds before a retry."""
        if not isinstance(error, ProblemError):
            return isinstance(error, NoAnswerError)
        if error.status not in RETRIED_STATUSES:
            return False
        if error.retry_after_s is None:
            return True
        if error.retry_after_s > LONGEST_RETRY_AFTER_S:
            return False
        jitter_s = random.uniform(0, self.backoff_s)  # noqa: S311 - jitter is not a secret
        return error.retry_after_s + jitter_s


@dataclass(eq=False)
class Client(_Caller):
    """Call the service from threads.

    ``timeout_s`` limits each step of a request: connect, send, receive. The client retries up to
    ``retries`` times after a failed connection, a timeout, or a 429, 502, 503 or 504. It waits as
    long as Retry-After asks, and gives up if Retry-After is more than five minutes. Without
    Retry-After it waits ``backoff_s`` seconds, doubled at each retry, plus jitter, but at most 30
    seconds. ``explain=True`` asks for ``Prediction.explanation``: what the model saw. ``model`` is
    the name of the model that answers; without it, the service chooses one for each image.

    Raises:
        UsageError: The URL, the API key or a proxy that the environment names cannot be used.
    """

    def __post_init__(self) -> None:
        self._http = httpx2.Client(**self._connection(httpx2.HTTPTransport))
        self._retrying = stamina.RetryingCaller(**self._retry_policy).on(self._decide_retry)

    def predict(self, image: Path | str | bytes) -> Prediction:
        """Classify one image, given as a path or as the bytes of an image file.

        Raises:
            UnreadableFileError: The file cannot be read.
            NoAnswerError: The last attempt got no answer.
            ProblemError: The server answered with an error.
            UnexpectedAnswerError: A 200 has no prediction. The URL may be another service's.
        """
        return self._retrying(self._post, _read_image(image))

    def _post(self, content: bytes) -> Prediction:
        with _connection_errors():
            response = self._http.post("/predict", content=content)
        return _parse_answer(response)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(eq=False)
class AsyncClient(_Caller):
    """Call the service from asyncio, with the arguments, retries and errors of Client."""

    def __post_init__(self) -> None:
        self._http = httpx2.AsyncClient(**self._connection(httpx2.AsyncHTTPTransport))
        self._retrying = stamina.AsyncRetryingCaller(**self._retry_policy).on(self._decide_retry)

    async def predict(self, image: Path | str | bytes) -> Prediction:
        """Classify one image, as ``Client.predict`` does, with the same ``Raises``."""
        return await self._retrying(self._post, await asyncio.to_thread(_read_image, image))

    async def _post(self, content: bytes) -> Prediction:
        with _connection_errors():
            response = await self._http.post("/predict", content=content)
        return _parse_answer(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _parse_url(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text.rstrip("/").removesuffix("/predict"))
    except httpx2.InvalidURL as error:
        raise UsageError(f"{text!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(
            f"got the URL {text!r}; it must look like http://HOST:PORT or https://HOST"
        )
    return url


def _parse_key(text: str | None) -> str:
    """Return the API key without the line break that a file or a Kubernetes Secret may add."""
    key = (text or "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            "the API key has a space or a character that no key has; check where it is copied from"
        )
    return key


def _read_image(image: Path | str | bytes) -> bytes:
    try:
        return image if isinstance(image, bytes) else Path(image).read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"cannot read {image!s}: {error.strerror or error}") from error


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Turn httpx2's errors into NoAnswerError and UnreachableError."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        reason = str(error) or type(error).__name__
        raise UnreachableError(f"cannot connect to {error.request.url}: {reason}") from error
    except httpx2.RequestError as error:
        reason = f"{type(error).__name__} {error}"
        raise NoAnswerError(f"{error.request.url} gave no answer: {reason}") from error


def _parse_answer(response: httpx2.Response) -> Prediction:
    if response.status_code != 200:
        raise _parse_problem(response)
    try:
        body = response.json()
        return Prediction(
            class_id=int(body["class_id"]),
            class_name=str(body["class_name"]),
            probability=float(body["probability"]),
            probabilities={str(name): float(p) for name, p in body["probabilities"].items()},
            model_name=str(body["model"]["name"]),
            model_version=str(body["model"]["version"]),
            explanation=body.get("explanation"),
            distance=body.get("distance"),
            in_distribution=body.get("in_distribution"),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        message = f"{response.url} answered 200 without a prediction: {response.text[:200]}"
        raise UnexpectedAnswerError(message) from error


def _parse_problem(response: httpx2.Response) -> ProblemError:
    title = f"HTTP {response.status_code} {response.reason_phrase}"
    problem = {"type": "about:blank", "title": title, "detail": response.text[:200]}
    with suppress(TypeError, ValueError):  # a proxy's error page is not a JSON object
        problem |= response.json()
    return ProblemError(response.status_code, problem, _parse_retry_after_s(response))


def _parse_retry_after_s(response: httpx2.Response) -> float | None:
    """Return the seconds of Retry-After, a number or an HTTP date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    wait = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)
    return max(0.0, wait.total_seconds())
