"""The HTTP client, for threads and for asyncio."""

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx2
import stamina

from service.client.answers import (
    Prediction,
    hide_password,
    parse_batch,
    parse_prediction,
    raise_for_problem,
)
from service.client.errors import (
    NoAnswerError,
    ProblemError,
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


Image = Path | str | bytes
"""An image file: its path or its bytes."""


@dataclass(eq=False)
class _Caller:
    """The arguments of Client and AsyncClient, and the settings derived from them. Does no I/O."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    retries: int = 5
    backoff_s: float = 0.5

    def _connection(
        self, transport: type[httpx2.HTTPTransport] | type[httpx2.AsyncHTTPTransport]
    ) -> dict[str, Any]:
        """Return the arguments of httpx2's clients."""
        headers = {"Accept": "application/json"}
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
        }

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
    seconds.

    Raises:
        UsageError: The URL, the API key or a proxy that the environment names cannot be used.
    """

    def __post_init__(self) -> None:
        self._http = httpx2.Client(**self._connection(httpx2.HTTPTransport))
        self._retrying = stamina.RetryingCaller(**self._retry_policy).on(self._decide_retry)

    def predict(
        self,
        image: Image,
        *,
        top_k: int | None = None,
        coverage: float | None = None,
        explain: bool = False,
        model: str | None = None,
    ) -> Prediction:
        """Classify one image, given as a path or as the bytes of an image file.

        ``top_k`` asks for the k most likely classes only. ``coverage`` asks for
        ``Prediction.prediction_set``, which aims to hold the true class with this probability.
        ``explain`` asks for ``Prediction.explanation``: what the model saw. ``model`` is the name
        of the model that answers; without it, the service chooses one for each image.

        Raises:
            UnreadableFileError: The file cannot be read.
            NoAnswerError: The last attempt got no answer.
            ProblemError: The server answered with an error.
            UnexpectedAnswerError: A 200 has no prediction. The URL may be another service's.
        """
        query = _query(top_k, coverage, explain, model)
        return parse_prediction(self._retrying(self._post, _request(_read_image(image), query)))

    def predict_batch(
        self,
        images: Iterable[Image],
        *,
        top_k: int | None = None,
        coverage: float | None = None,
        explain: bool = False,
        model: str | None = None,
    ) -> list[Prediction | ProblemError]:
        """Classify up to 1,024 images in one request; return an item for each, in their order.

        An image that the service rejects has a ProblemError in its place, which is not raised. The
        arguments are those of ``predict``.

        Raises:
            UnreadableFileError: A file cannot be read. No image is sent.
            NoAnswerError: The last attempt got no answer.
            ProblemError: The server rejected the whole request, for example as too large.
            UnexpectedAnswerError: A 200 has another number of predictions than ``images``.
        """
        contents = [_read_image(image) for image in images]
        if not contents:
            return []
        query = _query(top_k, coverage, explain, model)
        answer = self._retrying(self._post, _batch_request(contents, query))
        return parse_batch(answer, len(contents))

    def _post(self, request: Mapping[str, Any]) -> httpx2.Response:
        with _connection_errors():
            response = self._http.post(**request)
        raise_for_problem(response)
        return response

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

    async def predict(
        self,
        image: Image,
        *,
        top_k: int | None = None,
        coverage: float | None = None,
        explain: bool = False,
        model: str | None = None,
    ) -> Prediction:
        """Classify one image, as ``Client.predict`` does, with the same ``Raises``."""
        query = _query(top_k, coverage, explain, model)
        request = _request(await asyncio.to_thread(_read_image, image), query)
        return parse_prediction(await self._retrying(self._post, request))

    async def predict_batch(
        self,
        images: Iterable[Image],
        *,
        top_k: int | None = None,
        coverage: float | None = None,
        explain: bool = False,
        model: str | None = None,
    ) -> list[Prediction | ProblemError]:
        """Classify many images, as ``Client.predict_batch`` does, with the same ``Raises``."""
        contents = await asyncio.to_thread(lambda: [_read_image(image) for image in images])
        if not contents:
            return []
        query = _query(top_k, coverage, explain, model)
        answer = await self._retrying(self._post, _batch_request(contents, query))
        return parse_batch(answer, len(contents))

    async def _post(self, request: Mapping[str, Any]) -> httpx2.Response:
        with _connection_errors():
            response = await self._http.post(**request)
        raise_for_problem(response)
        return response

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


def _query(
    top_k: int | None, coverage: float | None, explain: bool, model: str | None
) -> dict[str, Any]:
    given = {"top_k": top_k, "coverage": coverage, "explain": explain or None, "model": model}
    return {name: value for name, value in given.items() if value is not None}


def _request(content: bytes, query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of httpx2's ``post`` for one image."""
    headers = {"Content-Type": "application/octet-stream"}
    return {"url": "/predict", "params": query, "content": content, "headers": headers}


def _batch_request(contents: Iterable[bytes], query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of httpx2's ``post`` for many images, as one form."""
    files = [("file", content) for content in contents]
    return {"url": "/predict/batch", "params": query, "files": files}


@contextmanager
def _connection_errors() -> Iterator[None]:
    """Turn httpx2's errors into NoAnswerError and UnreachableError."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        reason = str(error) or type(error).__name__
        url = hide_password(error.request.url)
        raise UnreachableError(f"cannot connect to {url}: {reason}") from error
    except httpx2.RequestError as error:
        reason, url = f"{type(error).__name__} {error}", hide_password(error.request.url)
        raise NoAnswerError(f"{url} gave no answer: {reason}") from error
