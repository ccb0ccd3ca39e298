"""The command line: ``python -m service.offline SOURCE --output FOLDER``."""

from __future__ import annotations

import argparse
import sys
import time

from service.errors import ServiceError, SettingsError
from service.server.configuration import read_configuration
from service.settings import Settings


def main() -> int:
    """Classify the images that the arguments name; return the exit code."""
    arguments = parse_arguments()
    try:
        settings = read_configuration({}).settings
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return run(arguments, settings)
    except (ServiceError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m service.offline",
        description="Classify many images without HTTP and write the answers as Parquet files. "
        "The same command again goes on where the last run ended. The settings are those of the "
        "service. RAY_ADDRESS names a Ray cluster; without it, this machine does the work.",
    )
    parser.add_argument(
        "source",
        help="a folder, a pattern such as 'photos/*.jpg', a .txt file with a path or URL on each "
        "line, or Parquet files with the column path and, if they hold the images, bytes; on disk, "
        "in S3 (s3://BUCKET/KEY) or in Google Cloud Storage (gs://BUCKET/KEY)",
    )
    parser.add_argument(
        "--output", required=True, help="the folder for the answers, on disk or in a bucket"
    )
    parser.add_argument("--model", help="name of the model that answers; else the image decides")
    return parser.parse_args()


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Classify what has no answer yet, print the counts and return 0."""
    try:
        from service.offline.cluster import classify
        from service.offline.parts import find_parts
        from service.offline.storage import Storage, normalise
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed; install the extra ray", file=sys.stderr)
        return 1
    source, output = normalise(arguments.source), normalise(arguments.output)
    started = time.monotonic()
    parts = find_parts(Storage(), source, output)
    images, errors = classify(parts, settings, arguments.model)
    seconds = time.monotonic() - started
    print(f"{images} images, {errors} of them with an error, in {seconds:.0f} s: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
