"""The command line: ``python -m service COMMAND``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from importlib.util import find_spec
from typing import Any

if find_spec("pydantic_settings") is None:
    sys.exit(
        "error: the packages of the service are not installed; run `make serve`, or "
        "`pip install '.[serve]'` in the repository"
    )

from service.api.keys import new_key
from service.errors import ServiceError, SettingsError
from service.machine.sizing import count_workers
from service.server.assignment import Assignment
from service.server.configuration import Configuration, name_option, read_configuration
from service.server.environment import check_metrics_folder
from service.settings import Settings

# Each command imports only the heavy packages that it needs: a container runs "health" every few
# seconds, so "health" must start fast.


def main() -> int:
    """Run the command that the arguments name; return its exit code."""
    try:
        return run(**vars(parse_arguments()))
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1


def run(command: str, **options: str) -> int:
    """Run the command; return its exit code."""
    if command == "key":
        return make_key(options["name"])
    if command == "serve" and (assignment := Assignment.from_environment()):
        return work(assignment)
    configuration = read_configuration(options)
    match command:
        case "serve":
            return serve(configuration.settings)
        case "health":
            return probe(configuration.settings)
        case _:
            return examine(configuration)


def parse_arguments() -> argparse.Namespace:
    """Read the command and its arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Classify clothing images over HTTP."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    options = [_make_options()]
    commands.add_parser(
        "serve",
        parents=options,
        allow_abbrev=False,
        help="serve the models in the folders SERVICE_MODELS",
    )
    commands.add_parser(
        "health",
        parents=options,
        allow_abbrev=False,
        help="print the running service's health and exit with 0 if the service is ready; "
        "else print the error and exit with 1",
    )
    commands.add_parser(
        "doctor",
        parents=options,
        allow_abbrev=False,
        help="check whether the service can run on this machine; print problems and what to change",
    )
    key = commands.add_parser(
        "key",
        help="make an API key; print the key to standard error, and its line for the file "
        "SERVICE_API_KEYS_FILE to standard output",
    )
    key.add_argument("name", help="the key's owner")
    return parser.parse_args()


def _make_options() -> argparse.ArgumentParser:
    """Return a parser with an option for each setting."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for name, field in Settings.model_fields.items():
        if field.description:  # a setting without a description is a former name
            parser.add_argument(name_option(name), help=field.description.replace("%", "%%"))
    return parser


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    _ignore_hangup()
    check_metrics_folder()
    if (workers := count_workers(settings)) > 1:
        from service.server.supervisor import supervise

        return supervise(settings, workers)
    from service.server import worker

    return worker.serve(settings)


def work(assignment: Assignment) -> int:
    """Serve as one of several workers; return the exit code."""
    _ignore_hangup()
    from service.server import worker

    return worker.serve(Settings(**assignment.settings), assignment)


def _ignore_hangup() -> None:
    """Ignore SIGHUP until the service has a handler: by default, the signal kills the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def examine(configuration: Configuration) -> int:
    """Print the doctor's page; return 0 if the service can run with these settings, else 1."""
    from service.server.doctor import doctor

    page, can_run = doctor(configuration.settings, origins=configuration.origins)
    print(page)
    return 0 if can_run else 1


def probe(settings: Settings) -> int:
    """Print the health of a ready service and return 0; else print the error and return 1."""
    any_address = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared, not listened on
    host = any_address.get(settings.host, settings.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/health"
    try:
        status, health = _ask_for_health(url)
    except HTTPException as error:
        print(f"{url}: another program answers there, without HTTP: {error!r}", file=sys.stderr)
        return 1
    except ValueError:
        print(f"{url}: another program answers there, without JSON", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(health), file=sys.stdout if status == 200 else sys.stderr)
    return 0 if status == 200 else 1


def _ask_for_health(url: str) -> tuple[int, Any]:
    """Return the status and the JSON body of an answer, also of an answer with an error status."""
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with without_proxy.open(url, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, json.load(answer)


def make_key(name: str) -> int:
    """Make an API key; return 0.

    Standard error gets the key, which only its owner needs. Standard output gets the line to add to
    the file of API keys.
    """
    key, line = new_key(name)
    print(f"{key} is the key of {name}; it is not shown again", file=sys.stderr)
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
