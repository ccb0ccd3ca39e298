"""Own the errors that training raises on purpose.

TrainingError
├── DataError      a data file is missing, damaged or holds a value that is not allowed
├── RunError       a run folder is missing, incomplete or contradicts what is asked of it
└── ExportError    the exported graph failed a check: nothing is published

A message says what was got, what is allowed and what to do; the command line prints it without a traceback.
"""


class TrainingError(Exception):
    """Base of every error that training raises on purpose."""


class DataError(TrainingError):
    """A data file is missing, damaged or holds a value that is not allowed."""


class RunError(TrainingError):
    """A run folder is missing, incomplete or contradicts what is asked of it."""


class ExportError(TrainingError):
    """The exported graph failed a check; nothing is published."""
