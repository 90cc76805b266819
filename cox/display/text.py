"""One value as text: without control characters, short, and as wide as a terminal shows it."""

from __future__ import annotations

import datetime
from typing import Any

ELLIPSIS = "…"


def printable(text: object) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


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
