"""ASGI middleware for a service that a proxy offers below a path."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Remove ``root_path`` from the start of a request's path, if the proxy kept it there.

    FastAPI reads ``root_path`` from the scope to name the right addresses in /docs.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            scope["root_path"] = self.root_path
            # More than once: Starlette's routes would remove it once more, after the API key of
            # another path was checked.
            while f"{scope['path']}/".startswith(f"{self.root_path}/"):
                scope["path"] = scope["path"].removeprefix(self.root_path) or "/"
        await self.app(scope, receive, send)
