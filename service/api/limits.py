"""ASGI middleware that limits uploads: how many, how large, and how slow each may be."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto

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

# Most uploads are answered before this delay has passed, and so need no guard task. A guard task
# for every upload would take a tenth of the time of an answer.
GUARD_AFTER_SECONDS = 0.1
# A client that sends a byte now and then is never silent, but must not keep its place for long.
MIN_BODY_BYTES_PER_SECOND = 1000
DURATION_WEIGHT = 0.05  # weight of the latest upload in the running mean of durations


class UploadEnd(Enum):
    """How an upload ends. It counts as answered as soon as its answer begins."""

    ANSWERED = auto()
    BODY_TOO_LARGE = auto()
    BODY_STALLED = auto()
    DEADLINE_PASSED = auto()
    CLIENT_GONE = auto()
    SERVER_STOPPED = auto()


class UploadLimits:
    """Admit uploads (every POST) within the limits of ``settings``; pass all other requests on.

    An upload is rejected before its body is read if ``status`` is not ``ready``, if it declares a
    body that is too large, or if too many uploads or bytes are in flight. An admitted upload is
    cancelled if its body stalls, its deadline passes or its client disconnects. If its image still
    waits then, the image is never classified. If the body turns out to be too large, the upload is
    answered with 413.
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
            await self._serve(scope, receive, send)
        finally:
            self.uploads -= 1
            self.bytes_reserved -= reserved
            seconds = asyncio.get_running_loop().time() - started
            self.mean_seconds += DURATION_WEIGHT * (seconds - self.mean_seconds)

    def _admit(self, declared: str) -> int:
        """Return the bytes to reserve: the declared length, else the largest length allowed."""
        if self.status() != "ready":
            raise NotReadyError(
                f"the service is {self.status()}; "
                "it accepts uploads only while it is ready; try again later"
            )
        limits = self.settings
        size = int(declared) if declared.isdecimal() else limits.max_upload_bytes
        if size > limits.max_upload_bytes:
            raise _too_large(f"{size} bytes", limits.max_upload_bytes)
        if self.uploads >= limits.max_uploads_in_flight:
            in_flight = f"{self.uploads} uploads are in flight"
            raise self._overloaded(in_flight, limits.max_uploads_in_flight)
        # An upload alone is admitted, also if it may be larger than all uploads together.
        if self.bytes_reserved and self.bytes_reserved + size > limits.max_bytes_in_flight:
            in_flight = f"{self.bytes_reserved} bytes are in flight, and this upload adds {size}"
            raise self._overloaded(in_flight, limits.max_bytes_in_flight)
        return size

    def _overloaded(self, in_flight: str, limit: int) -> OverloadedError:
        # By Little's law, as many uploads as are in flight now end within one mean duration.
        seconds = max(1, math.ceil(self.mean_seconds))
        return OverloadedError(
            f"{in_flight}; at most {limit} are allowed; try again in {seconds} s", seconds
        )

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine runs in a task
        upload = _AdmittedUpload(receive, send, self.settings.max_upload_bytes)
        guard = _Guard(upload, task, self.settings)
        try:
            await self.app(scope, upload.receive, upload.send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            task.uncancel()
            # The guard sets ``upload.end`` before it cancels the task. Without an end, the server
            # has cancelled the task, at its shutdown timeout.
            error = _error_for(upload.end or UploadEnd.SERVER_STOPPED, self.settings)
            if error is not None:
                await problem_response(scope, error)(scope, receive, upload.send)
        finally:
            guard.stop()


class _AdmittedUpload:
    """One admitted upload: reads its body, sends its answer, and records how it ends."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._loop = asyncio.get_running_loop()
        self._body_arrived = asyncio.Event()
        self.started_at = self.last_part_at = self._loop.time()
        self.received_bytes = 0
        self.end: UploadEnd | None = None

    async def receive(self) -> Message:
        """Return the next message from the client.

        Raises:
            UploadTooLargeError: The body is larger than allowed.
        """
        message = await self._receive()
        part = message.get("body", b"")
        if part:
            self.last_part_at = self._loop.time()
            self.received_bytes += len(part)
        if self.received_bytes > self._max_bytes:
            self.end = UploadEnd.BODY_TOO_LARGE
            raise _too_large(f"more than {self._max_bytes} bytes", self._max_bytes)
        if not message.get("more_body", False):
            self._body_arrived.set()
        return message

    async def send(self, message: Message) -> None:
        """Send one message of the answer."""
        if self.end is None:
            self.end = UploadEnd.ANSWERED
        elif message["type"] == "http.response.start" and not self._body_arrived.is_set():
            # On a connection that stays open, the server would read the rest of the body, however
            # slow or long the body is.
            MutableHeaders(scope=message)["Connection"] = "close"
        await self._send(message)

    @property
    def has_arrived(self) -> bool:
        """Whether the application has read the whole body."""
        return self._body_arrived.is_set()

    async def wait_for_body(self) -> None:
        """Wait until the application has read the whole body."""
        await self._body_arrived.wait()

    async def wait_for_disconnect(self) -> None:
        """Wait until the client has disconnected or the answer is complete."""
        await self._receive()  # after the body, the only message is http.disconnect


class _Guard:
    """Cancels an upload whose body stalls, whose deadline passes or whose client disconnects."""

    def __init__(
        self, upload: _AdmittedUpload, task: asyncio.Task[None], settings: Settings
    ) -> None:
        self._upload = upload
        self._upload_task = task
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._guard_task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(GUARD_AFTER_SECONDS, self._start)

    def stop(self) -> None:
        """Stop the guard; it no longer cancels the upload."""
        self._timer.cancel()
        if self._guard_task is not None:
            self._guard_task.cancel()
            # A cancelled task refers to its exception, the exception to a frame, and the frame to
            # this guard. A reference from the guard to the task would close a reference cycle.
            self._guard_task = None

    def _start(self) -> None:
        self._guard_task = asyncio.create_task(self._cancel_at_limit())

    async def _cancel_at_limit(self) -> None:
        end = await self._wait_for_end()
        if self._upload.end is None:
            self._upload.end = end
            self._upload_task.cancel()

    async def _wait_for_end(self) -> UploadEnd:
        while not self._upload.has_arrived:
            stalled_at = self._stalled_at
            limit = min(stalled_at, self._deadline)
            if self._loop.time() >= limit:
                is_stalled = stalled_at == limit
                return UploadEnd.BODY_STALLED if is_stalled else UploadEnd.DEADLINE_PASSED
            with suppress(TimeoutError):
                async with asyncio.timeout_at(limit):  # each part of the body moves the limit
                    await self._upload.wait_for_body()
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._upload.wait_for_disconnect()
                return UploadEnd.CLIENT_GONE
        except TimeoutError:
            return UploadEnd.DEADLINE_PASSED

    @property
    def _stalled_at(self) -> float:
        """When the body counts as stalled: nothing came since its last part, or it is too slow."""
        upload, timeout = self._upload, self._settings.upload_timeout_seconds
        allowed_seconds = timeout + upload.received_bytes / MIN_BODY_BYTES_PER_SECOND
        return min(upload.last_part_at + timeout, upload.started_at + allowed_seconds)

    @property
    def _deadline(self) -> float:
        return self._upload.last_part_at + self._settings.request_timeout_seconds


def _error_for(end: UploadEnd, settings: Settings) -> ServiceError | None:
    """Return the error to send to a cancelled upload; None if no answer is sent."""
    match end:
        case UploadEnd.BODY_STALLED:
            seconds = settings.upload_timeout_seconds
            return UploadTimeoutError(
                f"nothing of the body arrived for {seconds:g} s, or it arrived at less than "
                f"{MIN_BODY_BYTES_PER_SECOND} bytes per second; send it faster"
            )
        case UploadEnd.DEADLINE_PASSED:
            seconds = settings.request_timeout_seconds
            return DeadlineExceededError(
                f"the request was not answered within {seconds:g} s; try again later"
            )
        case UploadEnd.SERVER_STOPPED:
            return NotReadyError("the service stopped before it answered; try again later")
        case _:
            return None


def _too_large(size: str, limit: int) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"the request body has {size}; at most {limit} are allowed; "
        "send a smaller image, or fewer images at a time"
    )
