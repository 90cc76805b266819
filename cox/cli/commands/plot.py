"""`cox plot`: curves of all runs in a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from cox.analysis.choices import BANDS, LOGARITHMIC
from cox.cli import options, tables
from cox.cli.runs import reader_at, table_of
from cox.display.text import digest

#: How much of the names of a table and its columns goes into that of a file.
_MOST_BYTES = 200


@click.command()
@options.table
@click.argument("y")
@options.path
@click.option(
    "-x",
    "x",
    metavar="COLUMN",
    help="Along the axis: by default step, global_step, iteration or epoch, whichever counts the rows; or "
    "else row, the number of the row.",
)
@click.option("--hue", metavar="PARAM", help="Colour lines by this parameter, or column.")
@options.over
@click.option(
    "--band",
    type=click.Choice([band or "none" for band in BANDS]),
    default="ci",
    show_default=True,
    help="What is shown around a mean.",
)
@click.option(
    "--bins", type=click.IntRange(1), metavar="N", help="Average each run's rows in N parts of the axis."
)
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="S",
    help="Smooth each run as TensorBoard does: 0 not at all, 0.9 a lot.",
)
@click.option(
    "--log", type=click.Choice([axes for axes in LOGARITHMIC if axes]), help="Which axes are logarithmic."
)
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
    bins: int | None,
    smooth: float,
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

    Y may be several columns, as in loss,acc, which makes a panel for each.

    \b
    Examples:
      cox plot results loss runs --hue lr --over seed --log y -o loss.pdf
      cox plot results acc runs --params "arch == 'resnet'"
    """  # noqa: D301
    os.environ.pop("MPLBACKEND", None)  # a notebook's, which need not be installed here; a file needs none
    reader = reader_at(path, nested=nested)
    table = table_of(reader, table)
    target = output if output is not None else Path(_file_name(table, y))
    reader.plot(
        table,
        x,
        y.split(",") if "," in y else y,
        hue=hue,
        over=list(over) or None,
        band=None if band == "none" else band,
        bins=bins,
        smooth=smooth,
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


def _file_name(table: str, y: str) -> str:
    """The name of a plot's file. A digest tells apart names that look the same as part of it."""
    name = f"{table}-{y.replace(',', '_')}"
    shown = re.sub(r"[^\w.-]+", "_", name).encode()[:_MOST_BYTES].decode(errors="ignore")
    return f"{shown}.png" if shown == name else f"{shown}~{digest(name)}.png"
