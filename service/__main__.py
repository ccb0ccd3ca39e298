"""Own the command line: ``python -m service COMMAND``."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request

from pydantic import ValidationError

from service.settings import Settings


def main() -> int:
    """Run the command that the arguments name; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Classify clothing images over HTTP.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve the model that SERVICE_MODEL names")
    commands.add_parser("health", help="ask the service that runs here for its health; exit 0 if it takes traffic")
    command = parser.parse_args().command
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors():
            name = "SERVICE_" + "_".join(map(str, fault["loc"])).upper()
            print(f"{name}={fault['input']}: {fault['msg']}", file=sys.stderr)
        return 2
    if command == "health":
        return probe(settings)
    from service.server import serve  # only serving needs the heavy packages; a probe runs every few seconds

    return serve(settings)


def probe(settings: Settings) -> int:
    """Print the running service's health; return 0 if it takes traffic, else 1."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  any address is ours
    url = f"http://{host}:{settings.port}/health"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine needs no proxy
    try:
        with opener.open(url, timeout=5) as answer:
            print(json.dumps(json.load(answer)))
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
