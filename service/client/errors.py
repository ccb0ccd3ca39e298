"""The client's errors.

ClientError
├── UnreadableFileError     an image file cannot be read
├── NoAnswerError           the connection broke or timed out
│   └── UnreachableError    no connection could be made
├── UnexpectedAnswerError   a 200 without a prediction: the URL may be another service's
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
    """The connection broke or timed out at the last attempt."""

    problem_type, title = "client:no-answer", "No answer"


class UnreachableError(NoAnswerError):
    """The last attempt could not connect."""

    problem_type, title = "client:unreachable", "Server unreachable"


class UnexpectedAnswerError(ClientError):
    """A 200 has no prediction. The URL may be another service's."""

    problem_type, title = "client:unexpected-answer", "Unexpected answer"


class UsageError(ClientError):
    """An argument is wrong."""


class ProblemError(ClientError):
    """The server answered with an error.

    ``problem`` is the body of the answer (RFC 9457). ``retry_after_s`` is the wait that Retry-After
    asks for, or None.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], retry_after_s: float | None = None
    ) -> None:
        super().__init__(problem["detail"])
        self.status, self.problem, self.retry_after_s = status, problem, retry_after_s
        self.problem_type, self.title = str(problem["type"]), str(problem["title"])
        self.request_id = str(problem["request_id"]) if "request_id" in problem else None
