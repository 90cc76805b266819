"""`cox export`: all tables as Parquet datasets."""

from __future__ import annotations

from pathlib import Path

import click

from cox.cli import options, tables
from cox.cli.runs import reader_at
from cox.display.text import printable


def _both(ctx: click.Context, param: click.Parameter, value: tuple[Path, ...]) -> tuple[Path, Path]:
    """PATH, which may be left out, and DEST."""
    if not 1 <= len(value) <= 2:
        raise click.UsageError("give a folder of runs and where to write to: [PATH] DEST")
    path = value[0] if len(value) == 2 else Path()
    if not path.is_dir():
        raise click.BadParameter(f"{path} is no directory of runs", param_hint="PATH")
    return path, value[-1]


@click.command()
@click.argument("paths", metavar="[PATH] DEST", nargs=-1, callback=_both, type=options.Place(path_type=Path))
@click.option("--table", "wanted", multiple=True, metavar="TABLE", help="Only this table. Repeatable.")
@options.params
@options.nested
@options.as_json
def export(
    paths: tuple[Path, Path], wanted: tuple[str, ...], params: str | None, nested: bool, as_json: bool
) -> None:
    """Write the tables of all runs in the folder PATH as Parquet datasets DEST/TABLE/.

    Called again, it writes only what changed.

    \b
    Example:
      cox export runs exported --table results
    """  # noqa: D301
    from cox.collection.dataset import directory_of

    path, dest = paths
    written = reader_at(path, nested=nested).to_parquet(dest, tables=list(wanted) or None, params=params)
    if as_json:
        click.echo(tables.as_json({"dest": str(dest), "tables": written}), nl=False)
        return
    for table, runs in written.items():
        where = printable(directory_of(dest, table))
        click.echo(f"{where}: {runs:,} runs written" if runs else f"{where}: up to date")
    if not written:
        click.echo("there are no tables to write", err=True)
