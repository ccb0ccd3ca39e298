"""The batch client: a library, and the command ``python -m service.client``.

Knows only the HTTP contract and imports no other part of ``service``.

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict("boot.png").class_name)
"""

import sys
from importlib.util import find_spec

if _missing := [name for name in ("httpx2", "rich", "stamina", "typer") if find_spec(name) is None]:
    _message = (
        f"the client needs packages that are not installed: {', '.join(_missing)}. "
        f"Run: pip install {' '.join(_missing)}"
    )
    # With `python -m service.client`, argv[0] is "-m" here. SystemExit prints no traceback.
    raise SystemExit(_message) if sys.argv[0] == "-m" else ModuleNotFoundError(_message)

from service.client.answers import Prediction
from service.client.client import AsyncClient, Client
from service.client.errors import (
    ClientError,
    NoAnswerError,
    ProblemError,
    UnexpectedAnswerError,
    UnreachableError,
    UnreadableFileError,
    UsageError,
)

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "NoAnswerError",
    "Prediction",
    "ProblemError",
    "UnexpectedAnswerError",
    "UnreachableError",
    "UnreadableFileError",
    "UsageError",
]
