"""The client of the service: a class to call it, sync and async, and a command for many images."""

from service.client.client import (
    AsyncClient,
    Client,
    ClientError,
    NoAnswerError,
    Prediction,
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
