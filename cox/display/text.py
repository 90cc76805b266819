"""One value as text: without control characters, short, and as wide as a terminal shows it."""

from __future__ import annotations

import datetime
from typing import Any

ELLIPSIS = "…"


def printable(text: object, instead: str = "?", *, keep: str = "") -> str:
    """Replace what could drive a terminal or garble a line.

    Control characters, line breaks, changes of the direction of writing, spaces that are not the common one,
    and halves of surrogate pairs, which stand for bytes that are not UTF-8.

    Args:
        text: The text.
        instead: What each of them is replaced by.
        keep: Those that stay.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() or char in keep else instead for char in shown)


def printable_lines(text: str) -> str:
    """Replace what is not printable in each line of a text."""
    return "\n".join(map(printable, text.split("\n")))


def digest(text: str, digits: int = 8) -> str:
    """Digits that tell a text from others that look the same once they were cut or made printable."""
    import hashlib

    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:digits]


def text(value: Any) -> str:
    """A value for people: six digits of a float, and nothing that drives a terminal."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime.datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, (tuple, list)) and all(isinstance(item, str) for item in value):
        return printable(", ".join(value))
    return printable(value)


def briefly(value: Any) -> str:
    """A value for people: four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def width(text: str) -> int:
    """How many columns of a terminal a text takes: a wide character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """A text that takes as many columns, aligned to the left or to the right."""
    space = " " * (columns - width(text))
    return space + text if right else text + space


def cut(text: str, columns: int, keep: str = "start") -> str:
    """A text that takes no more columns: an ellipsis stands for what was taken out.

    Args:
        text: The text.
        columns: How many columns it may take.
        keep: What to keep of it: its 'start', its 'end', or 'both'.
    """
    if width(text) <= columns:
        return text
    room = max(0, columns - 1)
    head = {"start": room, "end": 0, "both": (room + 1) // 2}[keep]
    start = _first(text, head)
    end = _first(text[::-1], room - width(start) if keep != "start" else 0)[::-1]
    return (start + ELLIPSIS + end)[: max(0, columns)]


def _first(text: str, columns: int) -> str:
    """As many of the first characters as fit."""
    if text.isascii():
        return text[:columns]
    used = 0
    for i, char in enumerate(text):
        used += width(char)
        if used > columns:
            return text[:i]
    return text
