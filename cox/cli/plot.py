"""`cox plot`: curves of all runs in a file."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cox.cli import options, tables
from cox.cli.runs import reader_at
from cox.errors import CollectionWarning, ColumnNotFoundError, TableNotFoundError, did_you_mean
from cox.steps import STEP_COLUMNS, candidates

if TYPE_CHECKING:
    from cox.readers import CollectionReader


@click.command()
@options.table
@click.argument("y")
@options.path
@click.option(
    "-x", "x", metavar="COLUMN", help="Along the axis: by default step, global_step, iteration or epoch."
)
@click.option("--hue", metavar="PARAM", help="Colour lines by this parameter, or column.")
@options.over
@click.option(
    "--band",
    type=click.Choice(["ci", "sd", "minmax", "none"]),
    default="ci",
    show_default=True,
    help="What is shown around a mean.",
)
@click.option("--log", type=click.Choice(["x", "y", "xy"]), help="Which axes are logarithmic.")
@click.option("--title", metavar="TEXT", help="Above the axes.")
@options.mixed
@options.where
@options.params
@options.nested
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=options.Place(dir_okay=False, path_type=Path),
    help="A .png, .pdf or .svg; by default TABLE-Y.png in this directory.",
)
@options.as_json
def plot(
    table: str,
    y: str,
    path: Path,
    x: str | None,
    hue: str | None,
    over: tuple[str, ...],
    band: str,
    log: str | None,
    title: str | None,
    mixed: bool,
    where: str | None,
    params: str | None,
    nested: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Draw the column Y of TABLE: a line for each run, or the mean over some of them. Prints the file's path.

    \b
    Examples:
      cox plot results loss runs --hue lr --over seed --log y -o loss.pdf
      cox plot results acc runs --params "arch == 'resnet'"
    """  # noqa: D301
    reader = reader_at(path, nested=nested)
    target = output if output is not None else Path(f"{_as_name(table)}-{_as_name(y)}.png")
    reader.plot(
        table,
        x if x is not None else _step(reader, table, y),
        y,
        hue=hue,
        over=list(over) or None,
        band=None if band == "none" else band,
        log=log or "",
        title=title,
        path=target,
        mixed=mixed,
        params=params,
        where=where,
    )
    if as_json:
        click.echo(tables.as_json({"path": str(target)}), nl=False)
    else:
        click.echo(str(target))


def _as_name(text: str) -> str:
    """Text as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", text)


def _step(reader: CollectionReader, table: str, y: str) -> str:
    """The column that counts steps.

    Raises:
        TableNotFoundError: There is no such table.
        ColumnNotFoundError: It has no such column.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollectionWarning)  # the drawing warns of what concerns this table
        found = reader.schemas
    if table not in found:
        hint = did_you_mean(table, found)
        raise TableNotFoundError(f"no run has a table {table!r}; there are {sorted(found)}{hint}")
    for name in candidates(found[table]):
        if name != y:
            return name
    raise ColumnNotFoundError(
        f"table {table!r} has none of {', '.join(STEP_COLUMNS)}: name the column along the axis with -x; "
        f"there are {', '.join(found[table])}"
    )
