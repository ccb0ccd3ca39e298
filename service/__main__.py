"""Own the command line: ``python -m service serve`` and ``python -m service health``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import urllib.error
import urllib.request

import uvicorn
from pydantic import ValidationError

from service.app import create_app
from service.settings import Settings
from service.telemetry import configure_logging


def main() -> int:
    """Run the command that the arguments name; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    parser.add_argument("command", choices=("serve", "health"), help="serve, or ask a running service for its health")
    command = parser.parse_args().command
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors():
            name = "SERVICE_" + "_".join(map(str, fault["loc"])).upper()
            print(f"{name}={fault['input']}: {fault['msg']}", file=sys.stderr)
        return 2
    return serve(settings) if command == "serve" else probe(settings)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT (exit code 0), or until the model turns out not to load (1)."""
    configure_logging(settings.log_level)
    exit_code = 0

    def fail() -> None:
        nonlocal exit_code
        exit_code = 1
        server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings, on_failure=fail),
            host=settings.host,
            port=settings.port,
            log_config=None,
            server_header=False,
            lifespan="on",
        )
    )
    # uvicorn raises the signal that stopped it once more when it has finished; without this it would kill the process.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: None)
    server.run()
    return exit_code if server.started else 1


def probe(settings: Settings) -> int:
    """Print the running service's health; return 0 if it takes traffic, else 1."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  any address is ours
    url = f"http://{host}:{settings.port}/health"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            print(json.dumps(json.load(answer)))
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
