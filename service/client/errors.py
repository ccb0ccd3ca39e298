"""The client's errors.

ClientError
├── UnreadableFileError     an image file cannot be read
├── NoAnswerError           the connection broke or timed out
│   └── UnreachableError    no connection could be made
├── UnexpectedAnswerError   a 200 that breaks the HTTP contract: the URL may be another service's
├── ProblemError            the server answered with an error
└── UsageError              an argument is wrong
"""

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of every error that the client raises on purpose."""

    problem_type = "client:error"
    title = "Client error"
    request_id: str | None = None

    @property
    def detail(self) -> str:
        """What happened, on one line."""
        return " ".join(str(self).split())


class UnreadableFileError(ClientError):
    """An image file cannot be read."""

    problem_type, title = "client:unreadable-file", "Unreadable file"


class NoAnswerError(ClientError):
    """The connection broke or timed out at every attempt."""

    problem_type, title = "client:no-answer", "No answer"


class UnreachableError(NoAnswerError):
    """No connection could be made at any attempt."""

    problem_type, title = "client:unreachable", "Server unreachable"


class UnexpectedAnswerError(ClientError):
    """A 200 breaks the HTTP contract."""

    problem_type, title = "client:unexpected-answer", "Unexpected answer"


class UsageError(ClientError):
    """An argument is wrong."""


class ProblemError(ClientError):
    """The server answered with an error.

    ``problem`` is the RFC 9457 body, ``retry_after_s`` what Retry-After asks for.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], retry_after_s: float | None = None
    ) -> None:
        super().__init__(problem["detail"])
        self.status, self.problem, self.retry_after_s = status, problem, retry_after_s
        self.problem_type, self.title = str(problem["type"]), str(problem["title"])
        self.request_id = str(problem["request_id"]) if "request_id" in problem else None
