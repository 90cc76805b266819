"""A table in a terminal: as wide and as high as that is. What has no place is told of on stderr."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import click

from cox.cli import terminal
from cox.display.grid import Column, Grid

#: Widths that text is cut to where a table is too wide, before columns are left out.
_WIDTHS = (60, 30, 20, 12)
#: Lines of a terminal that a table leaves to what stands around it.
_AROUND = 6
_GAP = 2


def show(grid: Grid, *, pinned: int = 0, whole: bool = False, indent: int = 0) -> None:
    """Print a table that fits the terminal, and tell of what it leaves out.

    Args:
        grid: The rows.
        pinned: How many of the first columns must not be left out.
        whole: Whether all rows are shown, however many there are.
        indent: How far from the left.
    """
    most = max(4, terminal.size().lines - _AROUND)
    cut = not whole and len(grid) > most
    made, hidden = rendered(
        _ends(grid, most) if cut else grid,
        terminal.size().columns - indent,
        pinned=pinned,
        cut_at=most // 2 if cut else None,
    )
    click.echo("".join(" " * indent + line for line in made.splitlines(keepends=True)), nl=False)
    if cut:
        terminal.note(f"{len(grid):,} rows; --head, --tail or a pipe shows others")
    tell_hidden(hidden)


def tell_hidden(hidden: Sequence[str]) -> None:
    """Tell which columns did not fit."""
    if hidden:
        some = ", ".join(hidden[:5]) + (", …" if len(hidden) > 5 else "")
        what = "1 column does" if len(hidden) == 1 else f"{len(hidden)} columns do"
        terminal.note(f"{what} not fit: {some}")


def rendered(grid: Grid, width: int, *, pinned: int = 0, cut_at: int | None = None) -> tuple[str, list[str]]:
    """A table that is not too wide, and the names of the columns that had no place.

    Args:
        grid: The rows.
        width: How wide it may be.
        pinned: How many of the first columns must not be left out.
        cut_at: Before which row an ellipsis stands for others.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    kept, widths = _fitting(grid.columns, width, pinned)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column, most in zip(kept, widths, strict=True):
        table.add_column(
            Text(column.heading),
            justify="right" if column.is_number else "left",
            max_width=most,
            no_wrap=True,
            overflow="ellipsis",
        )
    texts = [column.texts() for column in kept]
    for number, row in enumerate(zip(*texts, strict=True)):
        if number == cut_at:
            table.add_row(*["…"] * len(kept))
        styles = [column.style(column.cells[number]) if column.style else "" for column in kept]
        table.add_row(*(Text(cell, style=style) for cell, style in zip(row, styles, strict=True)))
    file = io.StringIO()
    # pinned columns may take more than there is
    console_width = max(width, sum(widths) + _GAP * len(widths))
    Console(file=file, force_terminal=terminal.is_terminal(), width=console_width).print(table)
    lines = (line.rstrip() for line in file.getvalue().splitlines())
    shown = {id(column) for column in kept}
    return "\n".join(lines) + "\n", [column.heading for column in grid.columns if id(column) not in shown]


def _fitting(columns: list[Column], width: int, pinned: int) -> tuple[list[Column], list[int]]:
    """The columns that fit, with their widths: text is cut first, then the last columns are left out."""
    from rich.cells import cell_len

    natural = [max(map(cell_len, [column.heading, *column.texts()])) for column in columns]
    widths = natural
    for most in _WIDTHS:
        if sum(widths) + _GAP * (len(widths) - 1) <= width:
            return columns, widths
        widths = [
            own if column.is_number else min(own, max(most, column.least, cell_len(column.heading)))
            for own, column in zip(natural, columns, strict=True)
        ]
    kept: list[int] = []
    used = -_GAP
    for at, own in enumerate(widths):
        if at >= pinned and used + _GAP + own > width and kept:
            continue
        kept.append(at)
        used += _GAP + own
    return [columns[at] for at in kept], [widths[at] for at in kept]


def _ends(grid: Grid, most: int) -> Grid:
    """The first and the last rows."""
    first, last = most // 2, most - most // 2 - 1
    return Grid(
        [replace(column, cells=column.cells[:first] + column.cells[-last:]) for column in grid.columns]
    )
