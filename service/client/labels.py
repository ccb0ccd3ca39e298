"""Finds the class that a folder is named after."""

import re
import unicodedata
from collections.abc import Callable, Sequence

NUMBERED = re.compile(r"(?:(?:class|label)[ _-]?)?(\d+)(?:[\W_]+(.+))?", re.IGNORECASE)
"""An id, with a word before it or a name after it."""


def match_class(folder: str, class_names: Sequence[str]) -> str | None:
    """Return the class whose name or id is ``folder``, or None.

    A folder's name cannot hold a slash, and people write names in their own way. So if no name or
    id is the same, case, plural, and all characters but letters and digits are ignored:
    ``T-shirt_top`` and ``t-shirts tops`` are ``T-shirt/top``. At last one side of a slash is
    enough: ``T-shirt``. An id may follow ``class`` or ``label``, or stand before the name of the
    same class: ``class_0``, ``0 T-shirt``. A folder that could be two classes is none.
    """
    if folder in class_names:
        return folder
    if folder.isdecimal():
        return _name_of(folder, class_names)
    for forms in (_letters, _singular_letters, _sides):
        found = [name for name in class_names if forms(folder) & forms(name)]
        if found:
            return found[0] if len(found) == 1 else None
    if numbered := NUMBERED.fullmatch(folder):
        number, rest = numbered.groups()
        name = _name_of(number, class_names)
        return name if rest is None or name == match_class(rest, class_names) else None
    return None


def _name_of(number: str, class_names: Sequence[str]) -> str | None:
    return class_names[int(number)] if int(number) < len(class_names) else None


def _letters(text: str) -> set[str]:
    return _join(text, str)


def _singular_letters(text: str) -> set[str]:
    return _join(text, _singular)


def _sides(text: str) -> set[str]:
    return {side for part in text.split("/") for side in _singular_letters(part)}


def _join(text: str, change: Callable[[str], str]) -> set[str]:
    words = re.split(r"[\W_]+", unicodedata.normalize("NFKC", text).casefold())
    joined = "".join(map(change, words))
    return {joined} - {""}


def _singular(word: str) -> str:
    """Return an English noun in the singular, or something that both forms have in common."""
    if re.search("(ss|sh|ch|x)es$", word):
        return word[:-2]
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if re.search("[^s]s$", word) else word
