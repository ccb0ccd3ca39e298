"""Own the sockets that the service listens on."""

from __future__ import annotations

import logging
import socket

from service.errors import AddressError
from service.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 2048


def listen(settings: Settings, count: int = 1) -> list[socket.socket]:
    """Open the address of ``settings``, with ``count`` sockets among which the kernel shares the connections out.

    Processes that accept from one socket share them badly: the first to wake up takes all that wait.

    Raises:
        AddressError: It cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        # Sockets that share a port would share it with another service's as well; this one shows whether it is free.
        with socket.create_server((settings.host, settings.port), family=family) as probe:
            address = probe.getsockname()[:2]
        listening = [
            socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=count > 1)
            for _ in range(count)
        ]
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # the rest names the address again
        raise AddressError(
            f"cannot listen on {settings.host}:{settings.port} ({reason}): "
            "stop what listens there, or set SERVICE_PORT or SERVICE_HOST"
        ) from error
    host, port = address
    log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    return listening
