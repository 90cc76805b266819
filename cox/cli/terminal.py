"""What may reach a terminal: text without control characters, and warnings of one line each.

Rows, names and errors come from files that anybody may have written. Everything that is printed for people
passes through `printable`; what goes to a pipe or a file as data is left as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cox.display.text import printable, printable_lines
from cox.errors import CoxWarning

#: How many warnings are printed before the rest is only counted.
MOST_WARNINGS = 10


def sentence(error: BaseException) -> str:
    """What an error says. A condition that cannot be read is shown in lines of its own."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    return printable_lines(text)


def is_terminal() -> bool:
    """Whether somebody looks at what is printed."""
    return sys.stdout is not None and sys.stdout.isatty()


def size() -> os.terminal_size:
    """Columns and lines; 80 by 24 where there is no terminal."""
    return shutil.get_terminal_size((80, 24))


def styled(text: str, *, colour: str | None = None, bold: bool = False) -> str:
    """Text in a colour, unless NO_COLOR is set. `click.echo` drops both where there is no terminal."""
    if os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=None if os.environ.get("NO_COLOR") else colour, bold=bold or None)


def painted(text: str, style: str) -> str:
    """Text in a colour, or in a style: 'bold' or 'dim'."""
    if style not in ("bold", "dim"):
        return styled(text, colour=style)
    return text if os.environ.get("TERM") == "dumb" else click.style(text, **{style: True})


def rule() -> str:
    """What the line below a heading is made of."""
    try:
        "─".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return "-"
    return "─"


def note(text: str) -> None:
    """Tell something on stderr that is no part of the answer."""
    click.echo(printable(text), err=True)


def open_streams() -> None:
    """Open those standard streams that the caller closed, so that no file of a run takes their number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor != number:
            os.dup2(descriptor, number)
            os.close(descriptor)
        setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def silence() -> None:
    """Drop what stdout still holds and cannot write, of which the interpreter would complain at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)


def tolerate_any_encoding() -> None:
    """Show characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """Print the warnings of cox as `warning: …` on stderr, each once, and no more than a few."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if not issubclass(category, CoxWarning):
            others(message, category, *rest, **named)
            return
        text = str(message)
        if text not in seen and len(seen) < MOST_WARNINGS:
            note(f"warning: {text}")
        seen.add(text)

    with warnings.catch_warnings():
        others = warnings.showwarning
        warnings.simplefilter("always", CoxWarning)
        warnings.showwarning = show
        try:
            yield
        finally:
            if (more := len(seen) - MOST_WARNINGS) > 0:
                note(f"warning: {more} more like these")
