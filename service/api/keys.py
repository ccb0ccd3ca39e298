"""Own the file of API keys: a line a key, hashed, read again when it changes. Knows nothing of HTTP.

A line is ``NAME:SHA256``; blank lines and lines that begin with ``#`` are passed over. A name may have several keys, so
that one can be put in force before another is withdrawn. A file without keys is a valid one, and lets nobody in.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from service.errors import KeysFileError

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
LINE = re.compile(rf"({NAME.pattern}):([0-9a-f]{{64}})")
CHECK_INTERVAL_SECONDS = 1.0


def new_key(name: str) -> tuple[str, str]:
    """Return a new key for ``name`` and its line for the file.

    Raises:
        KeysFileError: ``name`` cannot stand in the file.
    """
    if not NAME.fullmatch(name):
        raise KeysFileError(
            f"the name {name!r} is not allowed; use 1 to 64 letters, digits, dots, dashes, underscores"
        )
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{_hash(key).hex()}"


class KeyRing:
    """The keys of a file. A file that turns bad later is logged, and the keys read before stay in force."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys of ``path``; ``clock`` counts seconds.

        Raises:
            KeysFileError: The file cannot be read, or a line of it is not one of a key.
        """
        self._path = path
        self._clock = clock
        self._next_check = clock() + CHECK_INTERVAL_SECONDS
        self._stamp = _stamp(path)
        self._names = _read(path)

    def owner(self, key: str) -> str | None:
        """Return the name that ``key`` belongs to, or None; the time it takes tells nothing of the keys."""
        self._read_if_changed()
        offered = _hash(key)
        names = [name for known, name in self._names.items() if hmac.compare_digest(known, offered)]
        return names[0] if names else None

    def _read_if_changed(self) -> None:
        if self._clock() < self._next_check:
            return
        self._next_check = self._clock() + CHECK_INTERVAL_SECONDS
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names = _read(self._path)
        except KeysFileError as error:
            log.error("%s; the keys read before stay in force", error)
        else:
            log.info("%s was read again: %d keys are in force", self._path, len(self._names))


def _hash(key: str) -> bytes:
    # No salt and no slow hash: a key is 256 random bits, and none of those can be guessed from its hash.
    return hashlib.sha256(key.encode()).digest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> dict[bytes, str]:
    """Return the name of each key by the key's hash."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysFileError(f"the file of API keys {path} cannot be read: {error}") from error
    names = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:  # the line itself is not told: it may be a key in clear
            raise KeysFileError(
                f"{path}, line {number}: not NAME:SHA256; `python -m service key NAME` makes a key and its line"
            )
        names[bytes.fromhex(match[2])] = match[1]
    return names
