"""Own the socket that the service listens on."""

from __future__ import annotations

import logging
import socket

from service.errors import AddressError
from service.settings import Settings

log = logging.getLogger(__name__)


def listen(settings: Settings) -> socket.socket:
    """Open the address of ``settings``.

    Raises:
        AddressError: It cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # the rest names the address again
        raise AddressError(
            f"cannot listen on {settings.host}:{settings.port} ({reason}): "
            "stop what listens there, or set SERVICE_PORT or SERVICE_HOST"
        ) from error
    log.info("listening on http://%s:%d", *listening.getsockname()[:2])
    return listening
