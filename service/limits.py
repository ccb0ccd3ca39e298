"""Own what holds for every request before any route sees it, as pure ASGI: id, body limit, last resort."""

from __future__ import annotations

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import UploadTooLargeError
from service.problems import internal_error

log = logging.getLogger(__name__)

# Anything else could forge lines in the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class RequestId:
    """Give each request an id: the client's X-Request-ID if it is a plain one, else a new one; answer with it.

    An error that nothing else answered is logged with the id and answered with an opaque 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await internal_error(scope)(scope, receive, send_with_id)


class BodyLimit:
    """Refuse bodies of more than ``max_bytes``, by their declared length or, when chunked, as they arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if declared.isdecimal() and int(declared) > self.max_bytes:
                raise UploadTooLargeError(self._message(f"{declared} bytes"))
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise UploadTooLargeError(self._message(f"more than {self.max_bytes} bytes"))
            return message

        await self.app(scope, receive_within_limit, send)

    def _message(self, size: str) -> str:
        return f"the request body has {size}; at most {self.max_bytes} are allowed; send a smaller image"
