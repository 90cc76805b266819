"""What runs are called where people read it, and which run they mean when they give a part of its name."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cox.display.text import ELLIPSIS, printable
from cox.errors import RunNameError, RunNotFoundError

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
    if wanted in names:
        return wanted
    start, cut, end = wanted.partition(ELLIPSIS)
    least = len(start) + len(end)
    meant = [
        name
        for name in names
        if wanted and len(name) >= least and name.startswith(start) and name.endswith(end if cut else "")
    ]
    if not meant and wanted:  # of nested runs, the last part of their path
        meant = [name for name in names if name.rpartition("/")[2].startswith(wanted)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise RunNameError(f"{len(meant)} runs begin with {typed}: {_some(meant)}")
    if not names:
        raise RunNotFoundError(f"there is no run {typed}, nor any other there")
    close = difflib.get_close_matches(wanted, names, n=3)
    hint = f"did you mean {' or '.join(map(printable, close))}?" if close else f"there are {_some(names)}"
    raise RunNotFoundError(f"there is no run {typed}; {hint}")


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(printable, names[:_MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")
