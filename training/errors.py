"""The errors that training raises on purpose.

TrainingError
├── DataError      a data file is missing or damaged, or holds a value that is not allowed
├── RunError       a run folder is missing or incomplete, or contradicts the request
└── ExportError    the exported graph failed a check, so nothing is published

A message says what was received, what is allowed and what to do. The command line prints the
message without a traceback.
"""


class TrainingError(Exception):
    """Base of every error that training raises on purpose."""


class DataError(TrainingError):
    """A data file is missing or damaged, or holds a value that is not allowed."""


class RunError(TrainingError):
    """A run folder is missing or incomplete, or contradicts the request."""


class ExportError(TrainingError):
    """The exported graph failed a check, so nothing is published."""
