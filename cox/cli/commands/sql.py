"""`cox sql`: a query over the tables of all runs."""

from __future__ import annotations

from pathlib import Path

import click

from cox.cli import options, tables
from cox.cli.runs import reader_at
from cox.display.grid import from_frame


@click.command()
@click.argument("query")
@options.path
@options.nested
@options.output
def sql(query: str, path: Path, nested: bool, format: str | None, output: Path | None, as_json: bool) -> None:
    """Ask DuckDB about the tables of all runs in the folder PATH.

    Every table has a column exp_id. Beside them there are `runs`, with the state of each run, and `params`,
    with its parameters.

    \b
    Examples:
      cox sql "select lr, max(acc) from results join params using (exp_id) group by lr" runs
      cox sql "select state, count(*) from runs group by state" runs --json
    """  # noqa: D301
    tables.format_of(format, output, as_json)  # before anything is read
    frame = reader_at(path, nested=nested).sql(query)
    tables.emit(from_frame(frame), format, output, as_json)
