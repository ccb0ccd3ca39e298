"""Own what an upload may cost before any route sees it, as pure ASGI: how many, how large, how slow, how long."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response
from service.errors import (
    DeadlineExceededError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    UploadTimeoutError,
    UploadTooLargeError,
)
from service.inference.live_model import Status
from service.settings import Settings

GUARD_AFTER_SECONDS = (
    0.1  # most are answered before that, and a task for each would cost a tenth of an answer
)
DURATION_WEIGHT = 0.05  # of the latest upload in the running mean


class UploadLimits:
    """Admit uploads, that is every POST, within the limits of ``settings``; all other requests pass.

    Refused at once, before the body is read: what comes while ``status`` is not ``ready``, declares too large a body,
    or is one too many, by number or by bytes. A body that comes slowly, or grows too large, is given up; so is a
    request past its deadline, and one whose client has gone: its task is cancelled, so that what waits is never run.
    """

    def __init__(self, app: ASGIApp, settings: Settings, status: Callable[[], Status]) -> None:
        self.app = app
        self.settings = settings
        self.status = status
        self.uploads = 0
        self.bytes_reserved = 0
        self.mean_seconds = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            reserved = self._admit(Headers(scope=scope).get("content-length", ""))
        except ServiceError as error:
            response = problem_response(scope, error)
            if self.status() == "draining":
                response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        self.uploads += 1
        self.bytes_reserved += reserved
        started = asyncio.get_running_loop().time()
        try:
            await _AdmittedUpload(self.settings, started).run(self.app, scope, receive, send)
        finally:
            self.uploads -= 1
            self.bytes_reserved -= reserved
            self.mean_seconds += DURATION_WEIGHT * (
                asyncio.get_running_loop().time() - started - self.mean_seconds
            )

    def _admit(self, declared: str) -> int:
        """Return how many bytes to reserve for a body that declares its length, or does not."""
        if self.status() != "ready":
            raise NotReadyError(
                f"the service is {self.status()} and takes no uploads now; try again later"
            )
        limits = self.settings
        size = int(declared) if declared.isdecimal() else limits.max_upload_bytes
        if size > limits.max_upload_bytes:
            raise _too_large(f"{size} bytes", limits.max_upload_bytes)
        if self.uploads >= limits.max_uploads_in_flight:
            raise self._overloaded(
                f"{self.uploads} uploads are in flight, which is all the service takes on at a time"
            )
        if self.bytes_reserved + size > limits.max_bytes_in_flight:
            raise self._overloaded(
                f"{self.bytes_reserved} bytes are in flight; {limits.max_bytes_in_flight} are allowed"
            )
        return size

    def _overloaded(self, message: str) -> OverloadedError:
        # By Little's law those in flight are done after one mean duration.
        seconds = max(1, math.ceil(self.mean_seconds))
        return OverloadedError(f"{message}; try again in {seconds} s", seconds)


class _AdmittedUpload:
    """One admitted upload, from its first byte to its answer."""

    def __init__(self, settings: Settings, started: float) -> None:
        self._settings = settings
        self._started = started
        self._received = 0
        self._complete = asyncio.Event()
        self._given_up = False
        self._gone = False
        self._answering = False
        # Without one the server has waited for as long as it may after SIGTERM.
        self._reason: ServiceError = NotReadyError(
            "the service stopped before it could answer; try again later"
        )
        self._guard: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_within_limits() -> Message:
            message = await receive()
            self._received += len(message.get("body", b""))
            if self._received > self._settings.max_upload_bytes:
                self._given_up = True
                limit = self._settings.max_upload_bytes
                raise _too_large(f"more than {limit} bytes", limit)
            if not message.get("more_body", False):
                self._complete.set()
            return message

        async def send_and_note(message: Message) -> None:
            self._answering = True
            if message["type"] == "http.response.start" and self._given_up:
                # Else the rest of the body would be read first, however slow or long it is.
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        request = asyncio.current_task()
        assert request is not None  # noqa: S101  a coroutine runs in a task
        timer = asyncio.get_running_loop().call_later(
            GUARD_AFTER_SECONDS, self._start_guard, receive, request
        )
        try:
            await app(scope, receive_within_limits, send_and_note)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            request.uncancel()
            if not self._gone and not self._answering:
                await problem_response(scope, self._reason)(scope, receive, send_and_note)
        finally:
            timer.cancel()
            if self._guard is not None:
                self._guard.cancel()
                self._guard = None  # its cancellation keeps its frame, and that this: a cycle for the garbage collector

    def _start_guard(self, receive: Receive, request: asyncio.Task[None]) -> None:
        self._guard = asyncio.create_task(self._cancel_in_time(receive, request))

    async def _cancel_in_time(self, receive: Receive, request: asyncio.Task[None]) -> None:
        """Cancel a request whose body does not come, whose answer takes too long, or whose client has gone."""
        for_upload, for_all = (
            self._settings.upload_timeout_seconds,
            self._settings.request_timeout_seconds,
        )
        try:
            async with asyncio.timeout_at(self._started + for_all):
                try:
                    async with asyncio.timeout_at(self._started + for_upload):
                        await self._complete.wait()
                except TimeoutError:
                    self._given_up = True
                    self._reason = UploadTimeoutError(
                        f"the body did not arrive within {for_upload:g} s; send it faster"
                    )
                else:
                    await receive()  # after the body there is but the end of the connection
                    if self._answering:
                        return
                    self._gone = True
        except TimeoutError:
            if self._answering:
                return
            self._given_up = not self._complete.is_set()
            self._reason = DeadlineExceededError(
                f"the request was not answered within {for_all:g} s; try again later"
            )
        request.cancel()


def _too_large(size: str, limit: int) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"the request body has {size}; at most {limit} are allowed; send a smaller image"
    )
