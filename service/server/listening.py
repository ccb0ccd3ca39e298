"""The sockets that the service listens on."""

from __future__ import annotations

import errno
import logging
import socket

from service.errors import AddressError
from service.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 2048  # connections that the kernel keeps until a worker accepts them


def listen(settings: Settings, count: int = 1) -> list[socket.socket]:
    """Open ``count`` listening sockets on one address.

    The kernel spreads the connections evenly over the sockets. Workers that share one socket get
    uneven shares: the first to wake up accepts all connections that wait.

    Raises:
        AddressError: The address is taken or does not exist.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Without it, Linux accepts IPv4 on "::" only if no setting of the machine forbids it.
    both = settings.host == "::" and socket.has_dualstack_ipv6()
    try:
        # Sockets with reuse_port can share a port with another service without an error. The probe
        # does not use reuse_port, so it fails if the port is taken. If the port in the settings is
        # 0, the probe also picks a free port.
        place = settings.host, settings.port
        with socket.create_server(place, family=family, dualstack_ipv6=both) as probe:
            address = probe.getsockname()[:2]
        listening = [
            socket.create_server(
                address,
                family=family,
                backlog=BACKLOG,
                reuse_port=count > 1,
                dualstack_ipv6=both,
            )
            for _ in range(count)
        ]
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name with an empty part
        reason = str(getattr(error, "strerror", "no valid host name"))
        reason = reason.partition(" (")[0]  # Python adds the address in parentheses
        raise AddressError(
            f"cannot listen on {settings.host}:{settings.port} ({reason}): {_advise(error)}"
        ) from error
    host, port = address
    log.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    return listening


def _advise(error: OSError | UnicodeError) -> str:
    match getattr(error, "errno", None):
        case errno.EADDRINUSE:
            return "stop the program that listens there, or set another SERVICE_PORT"
        case errno.EACCES:
            return "set SERVICE_PORT to 1024 or higher"
        case _:
            return "set SERVICE_HOST to an address of this machine, such as 127.0.0.1 or 0.0.0.0"
