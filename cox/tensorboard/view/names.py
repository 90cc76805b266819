"""What a run is called in TensorBoard: `--format-str` filled in, as a name that is safe for a file.

No I/O. A format string comes from whoever calls the command and the values from whoever wrote the run, so
neither reaches `str.format`, a path or a terminal as it is.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from cox.display.text import digest, printable
from cox.errors import ViewError, unknown

#: How long a file name may be, in bytes.
_NAME_BYTES = 255
#: What a browser shows: other spaces, and what joins letters, or emoji.
_KEPT = "\u00a0\u3000\u200c\u200d"
#: How long a tag may be: it stands before every point.
_TAG_BYTES = 500

# format() makes as many characters as a width or a precision says
_TOO_WIDE = re.compile(r"\d{4,}")


class FormatSpecError(ViewError):
    """A format spec does not fit a value."""


@dataclass(frozen=True, slots=True)
class Field:
    """`{param:spec}` in a format string."""

    param: str
    spec: str


def parse(text: str, known: Sequence[str]) -> list[str | Field]:
    """A format string as text and fields. Not `str.format`, which reaches into objects.

    A parameter's name may hold anything, colons and braces too: the longest known one counts.

    Raises:
        ViewError: A brace without its partner, an unknown parameter, a width beyond all measure.
    """
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    piece = re.compile(r"([^{}]+|\{\{|\}\})|\{(?P<param>" + names + r")(?::(?P<spec>[^{}]*))?\}")
    pieces: list[str | Field] = []
    at = 0
    while at < len(text):
        match = piece.match(text, at)
        if match is None:
            raise ViewError(_why_no_format(text, at, known))
        spec = match["spec"] or ""
        if _TOO_WIDE.search(spec):
            raise ViewError(f"--format-str {text!r}: {spec!r} asks for more than 999 characters")
        literal = {"{{": "{", "}}": "}"}.get(match[0], match[0])
        pieces.append(literal if match["param"] is None else Field(match["param"], spec))
        at = match.end()
    return pieces


def _why_no_format(text: str, at: int, known: Sequence[str]) -> str:
    field = re.compile(r"\{([^{}]*)\}").match(text, at)
    if field is None:
        return f"--format-str {text!r}: the brace at position {at} has no partner; write it twice to show one"
    return no_parameter(f"--format-str {text!r}", field[1], known)


def render(pieces: Iterable[str | Field], values: Mapping[str, Any], exp_id: str) -> str:
    """A parsed format string with the values of a run.

    Raises:
        FormatSpecError: A spec that does not fit its value.
    """
    made = []
    for piece in pieces:
        if isinstance(piece, str):
            made.append(piece)
            continue
        try:
            made.append(_show(values[piece.param], piece.spec))
        except (ValueError, OverflowError) as error:
            raise FormatSpecError(
                f"--format-str: {piece.spec!r} cannot show {piece.param} of run {exp_id}, "
                f"{reprlib.repr(values[piece.param])}: {error}"
            ) from error
    return "".join(made)


def _show(value: Any, spec: str) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "None"  # under any spec: some run may lack the parameter
    if type(value) is list:
        value = ".".join(map(str, value))
    elif not isinstance(value, (int, float, str)):
        value = str(value)  # the spec must not reach the object
    return format(value, spec)


def candidates(prefix: str | None, exp_id: str) -> Iterator[str]:
    """`<prefix>-<exp_id>` as a file name, then the same with a number, for where it is taken.

    Without a prefix it is the exp_id alone.
    """
    exp_id = _as_name(exp_id)
    start = "" if prefix is None else _as_name(prefix)
    for number in count(1):
        mark = f" ({number})" if number > 1 else ""
        room = _NAME_BYTES - len(f"{mark}-{exp_id}".encode())
        if prefix is None and len(f"{exp_id}{mark}".encode()) <= _NAME_BYTES:
            yield f"{exp_id}{mark}"
        elif room >= 0:
            yield f"{_cut(start, room)}{mark}-{exp_id}"
        else:  # an exp_id that fills a name by itself
            yield _cut(exp_id, _NAME_BYTES - len(mark)) + mark


def _cut(text: str, room: int) -> str:
    """The text in at most so many bytes; an ellipsis, where there is room for it, says what was cut off."""
    if len(text.encode()) <= room:
        return text
    ellipsis = "…" if room >= len("…".encode()) else ""
    return text.encode()[: room - len(ellipsis.encode())].decode(errors="ignore") + ellipsis


def _as_name(text: str) -> str:
    return printable(text, "_", keep=_KEPT).replace("/", "_")


def tag(table: str, column: str) -> str:
    """What the curve of a column is called: `table/column`.

    A name that was cut, or made printable, ends with a digest, so that no two columns share a curve by that.
    """
    name = f"{table}/{column}"
    shown = _cut(printable(name, "_", keep=_KEPT), _TAG_BYTES)
    return name if shown == name else f"{shown}~{digest(name)}"


def no_parameter(option: str, param: str, known: Sequence[str]) -> str:
    """What to say of a parameter that no run has."""
    return unknown(f"{option}: there is no parameter", param, known)
