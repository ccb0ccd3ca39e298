"""Own the command line: ``python -m service COMMAND``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import urllib.request

from pydantic import ValidationError

from service.api.keys import new_key
from service.errors import ServiceError
from service.machine.sizing import count_workers
from service.server.assignment import Assignment
from service.settings import Settings


def main() -> int:
    """Run the command that the arguments name; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Classify clothing images over HTTP."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve the model that SERVICE_MODEL names")
    commands.add_parser(
        "health", help="ask the service that runs here for its health; exit 0 if it takes traffic"
    )
    commands.add_parser(
        "doctor", help="say whether this machine would serve as configured, and if not, what to do"
    )
    key = commands.add_parser(
        "key", help="make an API key; its line for SERVICE_API_KEYS_FILE is written to stdout"
    )
    key.add_argument("name", help="whom the key is for")
    try:
        return run(parser.parse_args())
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code, 2 if a setting is not valid."""
    if arguments.command == "key":
        return make_key(arguments.name)
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in error.errors():
            print(
                f"SERVICE_{fault['loc'][0]}".upper() + f"={fault['input']}: {fault['msg']}",
                file=sys.stderr,
            )
        return 2
    if arguments.command == "health":
        return probe(settings)
    # The heavy packages are loaded by the commands that need them: a probe runs every few seconds.
    if arguments.command == "doctor":
        return examine(settings)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to load again
    assignment = Assignment.from_environment()
    if assignment is None and (workers := count_workers(settings)) > 1:
        from service.server.supervisor import supervise

        return supervise(settings, workers)
    from service.server.worker import serve

    return serve(settings, assignment)


def examine(settings: Settings) -> int:
    """Print the doctor's page; return 0 if the service would serve as configured, else 1."""
    from service.server.doctor import doctor

    page, serves = doctor(settings)
    print(page)
    return 0 if serves else 1


def probe(settings: Settings) -> int:
    """Print the running service's health; return 0 if it takes traffic, else 1."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  any address is ours
    url = f"http://{host}:{settings.port}/health"
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # this machine needs no proxy
    try:
        with opener.open(url, timeout=5) as answer:
            print(json.dumps(json.load(answer)))
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    return 0


def make_key(name: str) -> int:
    """Write a new key to standard error, for its owner, and its line to standard output, for the file; return 0."""
    key, line = new_key(name)
    print(f"{key} is the key of {name}; it is shown this once", file=sys.stderr)
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
