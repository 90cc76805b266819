"""What runs are called where people read it, and which run they mean when they give a part of its name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cox.display.text import ELLIPSIS, printable
from cox.errors import RunNameError, RunNotFoundError, there_are

#: How many runs an error names.
_MOST_NAMED = 5
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORT = 8


def shortening(known: Iterable[str]) -> Callable[[Any], str]:
    """Return what shows UUIDs by their first 8 characters, or by more where another run's name begins so.

    Args:
        known: The names of all runs. Those of nested runs are paths, whose last part is shortened.
    """
    names = list(known)
    alike = Counter(_beginning(name, _SHORT) for name in names)

    def shown(name: Any) -> str:
        text = str(name)
        if _UUID.fullmatch(text.rpartition("/")[2]):
            short = _beginning(text, _SHORT)
            if alike[short] > 1:
                short = _apart(text, [other for other in names if other != text and other.startswith(short)])
            return printable(short)
        return printable(text)

    return shown


def _beginning(name: str, length: int) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last[:length]


def _apart(name: str, others: Sequence[str]) -> str:
    """The shortest beginning of a name that none of the others has."""
    for length in range(len(name)):
        if not any(other.startswith(name[:length]) for other in others):
            return name[:length]
    return name


def resolve(wanted: str, names: Sequence[str], typed: str) -> str:
    """Return the run that is meant by its name, by a beginning of it, or by `beginning…end`.

    Args:
        wanted: What was given.
        names: The names of all runs.
        typed: What the error calls it.

    Raises:
        RunNotFoundError: There is none; names what may have been meant.
        RunNameError: There are several; names them.
    """
    meant = shown_as(wanted, names) or _beginning_with(wanted, names)
    if len(meant) == 1:
        return meant[0]
    if meant:
        verb = "are shown as" if wanted in _forms(meant[0]) else "begin with"
        raise RunNameError(f"{len(meant)} runs {verb} {typed}: {some(meant)}")
    raise RunNotFoundError(f"there is no run {typed}; {there_are(names, wanted, spell=quoted)}")


def shown_as(wanted: str, names: Sequence[str]) -> list[str]:
    """Return the name that is given, or else all that are shown as what is given, which is printable."""
    if wanted in names:
        return [wanted]
    return [name for name in names if wanted in _forms(name)]


def readable(path: str) -> str:
    """A path as text that every file and terminal takes: bytes of it that are not UTF-8 are spelled out."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _forms(name: str) -> set[str]:
    """How commands show a name, and the name."""
    if name.isprintable():
        return {name}
    return {name, readable(name), printable(name), printable(readable(name))}


def _beginning_with(wanted: str, names: Sequence[str]) -> list[str]:
    """The names that begin so, as they are or as they are shown; or of which the last part of a path does."""
    if not wanted:
        return []
    start, cut, end = wanted.partition(ELLIPSIS)

    def fits(form: str) -> bool:
        return (
            len(form) >= len(start) + len(end)
            and form.startswith(start)
            and form.endswith(end if cut else "")
        )

    forms = {name: _forms(name) for name in names}
    return [name for name in names if any(map(fits, forms[name]))] or [
        name for name in names if any(form.rpartition("/")[2].startswith(wanted) for form in forms[name])
    ]


def quoted(name: str) -> str:
    """A name as it is typed: as `$'…'`, which bash and zsh know, if not all of it is printable."""
    if name.isprintable():
        return name
    escaped = (
        char
        if char.isprintable() and char not in "\\'"
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
        for char in name
    )
    return f"$'{''.join(escaped)}'"


def some(names: Sequence[str]) -> str:
    """Some names, as they are typed, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(map(quoted, names[:_MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")
