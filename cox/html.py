"""What stores, tables and collections look like in a notebook. Plain tables; every text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cox.schema import Schema, type_name

if TYPE_CHECKING:
    import pandas as pd

#: Rows of a table, and runs of a collection, that are shown.
MOST_ROWS = 10


def of_frame(title: str, note: str, frame: pd.DataFrame) -> str:
    """A title, the first and last rows of a frame, and a note below."""
    shown = frame.to_html(max_rows=MOST_ROWS, max_cols=20, border=0, notebook=True, show_dimensions=False)
    return f"<div><b>{html.escape(title)}</b>{shown}<small>{html.escape(note)}</small></div>"


def of_tables(title: str, note: str, tables: Iterable[tuple[str, int, Schema]]) -> str:
    """A title, a line for each table with its rows and columns, and a note below."""
    lines = [(name, f"{nrows:,}", _columns(schema)) for name, nrows, schema in tables]
    shown = _table(("table", "rows", "columns"), lines) if lines else "<p>no tables yet</p>"
    return f"<div><b>{html.escape(title)}</b>{shown}<small>{html.escape(note)}</small></div>"


def span(seconds: float) -> str:
    """A duration as hours, minutes and seconds: '1:02:03'; empty if nobody knows it."""
    if seconds != seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def counted(number: int, what: str) -> str:
    """'1 run', '2,000 runs'."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _columns(schema: Schema) -> str:
    return ", ".join(f"{column.name}: {type_name(column.type)}" for column in schema)


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in header)
    rows = (
        "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in line) for line in lines
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
