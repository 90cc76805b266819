"""What stores, tables and collections look like in a notebook: plain tables, whose texts are escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cox.display.grid import Column, Grid
from cox.display.text import cut, printable_lines
from cox.schema import Schema, type_name

if TYPE_CHECKING:
    import pandas as pd

#: Rows of a table, and runs of a collection, that are shown.
MOST_ROWS = 10
#: Longer texts lose their middle.
LONGEST = 60
#: Of a terminal's colours, those that can be read on light and on dark.
_COLOURS = {"cyan": "#0097a7", "green": "#2e9e44", "red": "#d9363e", "magenta": "#a64ac9", "dim": "#888"}


def of_frame(title: str, note: str, frame: pd.DataFrame) -> str:
    """A title, the first and last rows of a frame, and a note below."""
    shown = frame.to_html(max_rows=MOST_ROWS, max_cols=20, border=0, notebook=True, show_dimensions=False)
    return _document(title, shown, note)


def of_grid(title: str, note: str, grid: Grid) -> str:
    """A title, a grid as the commands show it, and a note below. A tooltip has what is cut."""
    head = "".join(_cell("th", column.heading, right=column.is_number) for column in grid.columns)
    rows = []
    for cells in zip(*(_cells(column) for column in grid.columns), strict=True):
        rows.append(f"<tr>{''.join(cells)}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return _document(title, table, note)


def _document(title: str, shown: str, note: str) -> str:
    # a notebook's protocol has no halves of surrogate pairs, and a browser heeds what turns text around
    return printable_lines(f"<div><b>{html.escape(title)}</b>{shown}<small>{html.escape(note)}</small></div>")


def _cells(column: Column) -> Iterator[str]:
    right = column.is_number
    for text, cell in zip(column.texts(), column.cells, strict=True):
        colour = column.style(cell) if column.style else ""
        tip = str(cell) if isinstance(cell, str) and cell != text else ""
        yield _cell("td", cut(text, LONGEST, "both"), right=right, colour=_COLOURS.get(colour, ""), tip=tip)


def _cell(kind: str, text: str, *, right: bool = False, colour: str = "", tip: str = "") -> str:
    style = f"text-align:{'right' if right else 'left'}" + (f";color:{colour}" if colour else "")
    title = f' title="{html.escape(tip)}"' if tip else ""
    return f'<{kind} style="{style}"{title}>{html.escape(text)}</{kind}>'


def of_tables(title: str, note: str, tables: Iterable[tuple[str, int, Schema]]) -> str:
    """A title, a line for each table with its rows and columns, and a note below."""
    lines = [(name, f"{nrows:,}", _columns(schema)) for name, nrows, schema in tables]
    shown = _table(("table", "rows", "columns"), lines) if lines else "<p>no tables yet</p>"
    return _document(title, shown, note)


def counted(number: int, what: str) -> str:
    """'1 run', '2,000 runs'."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _columns(schema: Schema) -> str:
    return ", ".join(f"{column.name}: {type_name(column.type)}" for column in schema)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(_cell("th", cell) for cell in header)
    rows = ("".join(_cell("td", cell) for cell in line) for line in lines)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
