"""The file of API keys, read again when it changes. Knows nothing about HTTP.

A line is ``NAME:SHA256``: a key's owner and the key's hash. Blank lines and lines that begin with
``#`` are ignored. A name may have several keys, so that a new key can be added before the old one
is removed. A file without keys is valid, but then every key is rejected.
"""

from __future__ import annotations

import codecs
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
        KeysFileError: ``name`` is empty, is too long or has characters that are not allowed.
    """
    if not NAME.fullmatch(name):
        raise KeysFileError(
            f"the name {name!r} is not allowed; "
            "use 1 to 64 letters, digits, dots, dashes and underscores"
        )
    key = secrets.token_urlsafe(32)
    return key, f"{name}:{_hash(key).hex()}"


class KeyRing:
    """The keys of a file.

    If the file changes and the new content is not valid, an error is logged and the old keys stay
    valid.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys of ``path``; ``clock`` counts seconds.

        Raises:
            KeysFileError: The file cannot be read, or one of its lines is not ``NAME:SHA256``.
        """
        self._path = path
        self._clock = clock
        self._next_check = clock() + CHECK_INTERVAL_SECONDS
        self._stamp = _stamp(path)
        self._names = _read(path)

    def owner(self, key: str) -> str | None:
        """Return the name of the key's owner, or None for an unknown key.

        The time that this takes reveals nothing about the known keys.
        """
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
            log.error("%s; the old keys stay valid", error)
        else:
            log.info("%s was read again: %d keys are valid", self._path, len(self._names))


def _hash(key: str) -> bytes:
    # No salt and no slow hash: nobody can guess a key of 256 random bits from its hash.
    return hashlib.sha256(key.encode()).digest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _decode(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 with its mark: PowerShell's ``>`` writes UTF-16."""
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig")


def _read(path: Path) -> dict[bytes, str]:
    """Return the owner's name for each key's hash."""
    try:
        lines = _decode(path.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysFileError(f"the file of API keys {path} cannot be read: {error}") from error
    names = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:  # the message does not show the line, because it may be a plain key
            raise KeysFileError(
                f"{path}, line {number}: the line is not NAME:SHA256; "
                "make a key and its line with `python -m service key NAME`"
            )
        names[bytes.fromhex(match[2])] = match[1]
    return names
