"""A table in a terminal: as wide and as high as that is. What does not fit is named on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from cox.cli import terminal
from cox.display.fitting import Fitted, fit
from cox.display.grid import Grid

#: Lines of a terminal that a table leaves to what stands around it.
_AROUND = 6


def show(grid: Grid, *, whole: bool = False, indent: int = 0) -> None:
    """Print a table that fits the terminal, and name what it leaves out.

    Args:
        grid: The rows.
        whole: Whether all rows are shown, however many there are.
        indent: How far from the left.
    """
    most = max(4, terminal.size().lines - _AROUND)
    cut = not whole and len(grid) > most
    fitted = fit(_ends(grid, most) if cut else grid, terminal.size().columns - indent)
    margin = " " * indent
    click.echo(margin + rendered(fitted, cut_at=most // 2 if cut else None).replace("\n", f"\n{margin}"))
    if cut:
        terminal.note(f"{len(grid):,} rows; --head, --tail or a pipe shows others")
    name_hidden(fitted.hidden)


def rendered(fitted: Fitted, *, cut_at: int | None = None) -> str:
    """A table with the colours that the terminal has.

    Args:
        fitted: What of it is shown.
        cut_at: Before which row an ellipsis stands for others.
    """
    return "\n".join(fitted.lines(terminal.painted, rule=terminal.rule(), cut_at=cut_at))


def name_hidden(hidden: Sequence[str]) -> None:
    """Name the columns that did not fit."""
    if hidden:
        some = ", ".join(hidden[:5]) + (", …" if len(hidden) > 5 else "")
        what = "1 column does" if len(hidden) == 1 else f"{len(hidden)} columns do"
        terminal.note(f"{what} not fit: {some}")


def _ends(grid: Grid, most: int) -> Grid:
    """The first and the last rows."""
    first, last = most // 2, most - most // 2 - 1
    return Grid(
        [replace(column, cells=column.cells[:first] + column.cells[-last:]) for column in grid.columns]
    )
