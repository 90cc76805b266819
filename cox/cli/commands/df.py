"""`cox df`: a table of all runs, printed or saved."""

from __future__ import annotations

from pathlib import Path

import click

from cox.cli import options, tables, terminal
from cox.cli.runs import reader_at, table_of
from cox.collection.naming import shortening
from cox.display.grid import PINNED, from_frame


@click.command()
@options.table
@options.path
@options.where
@options.params
@options.columns
@click.option("--head", type=click.IntRange(0), metavar="N", help="Only the first N rows.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N rows.")
@options.nested
@options.output
def df(
    table: str,
    path: Path,
    where: str | None,
    params: str | None,
    columns: list[str] | None,
    head: int | None,
    tail: int | None,
    nested: bool,
    format: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print TABLE of all runs in the folder PATH, with a column exp_id, or save it.

    A terminal shows the first and the last rows, in as many columns as fit. In a pipe, it is CSV.

    \b
    Examples:
      cox df results runs --params "lr < 0.1" --columns step,acc
      cox df results runs -o results.parquet
    """  # noqa: D301
    if head is not None and tail is not None:
        raise click.UsageError("--head and --tail: choose one of them")
    tables.format_of(format, output, as_json)  # before anything is read
    reader = reader_at(path, nested=nested)
    table = table_of(reader, table)
    frame = reader.df(table, union_schemas=True, columns=columns, where=where, params=params)
    if head is not None:
        frame = frame.iloc[:head]
    if tail is not None:
        frame = frame.iloc[max(0, len(frame) - tail) :]
    how = tables.format_of(format, output, as_json)
    if how == "table":
        frame = frame[["exp_id", *(name for name in frame.columns if name != "exp_id")]]
    grid = from_frame(frame)
    if how == "table":
        ids = grid.columns[0]
        ids.rank = PINNED
        if output is None and terminal.is_terminal():
            ids.shown = shortening(reader.exp_ids)
            ids.among = list(map(ids.shown, reader.exp_ids))
    tables.emit(grid, how, output, as_json=False)
