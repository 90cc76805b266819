"""`cox compare`: what came of runs, averaged over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cox.analysis.choices import INTERVALS, REDUCTIONS
from cox.cli import options, tables, terminal
from cox.cli.runs import reader_at, table_of
from cox.collection.naming import shortening
from cox.display.grid import DECORATION, PINNED, Column, Grid, from_frame

if TYPE_CHECKING:
    from cox.analysis.shown import Comparison

#: How many runs a note names.
_MOST_NAMED = 5


@click.command()
@options.table
@click.argument("metric")
@options.path
@options.by
@options.over
@click.option(
    "--reduce",
    type=click.Choice(REDUCTIONS),
    default="last",
    show_default=True,
    help="Make one number of each run.",
)
@click.option(
    "--interval",
    type=click.Choice(INTERVALS),
    default="t",
    show_default=True,
    help="Student's t, or BCa bootstrap.",
)
@click.option(
    "--level",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="The level of the interval.",
)
@options.mixed
@options.where
@options.params
@options.nested
@options.output
def compare(
    table: str,
    metric: str,
    path: Path,
    by: tuple[str, ...],
    over: tuple[str, ...],
    reduce: str,
    interval: str,
    level: float,
    mixed: bool,
    where: str | None,
    params: str | None,
    nested: bool,
    format: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Average the column METRIC of TABLE over the runs that share parameters.

    Shows the mean and the half width of its confidence interval. CSV, JSON and Parquet have all numbers:
    n, mean, std, low, high, iqm (interquartile mean), min, max, and the runs. Runs without a value, with NaN,
    or with a repeated seed are told on stderr.

    \b
    Examples:
      cox compare results acc runs --by lr --over seed --reduce max
      cox compare results acc runs --by arch --by lr --over seed --format latex
    """  # noqa: D301
    how = tables.format_of(format, output, as_json)
    reader = reader_at(path, nested=nested)
    table = table_of(reader, table)
    frame = reader.compare(
        table,
        metric,
        by=list(by),
        over=list(over) or None,
        reduce=reduce,
        interval=interval,
        level=level,
        mixed=mixed,
        params=params,
        where=where,
    )
    _tell(frame, shortening(reader.exp_ids))
    if how == "json":
        _emit_json(frame, output)
        return
    if how in ("csv", "jsonl", "parquet"):
        grid = from_frame(frame.assign(runs=frame.runs()))
    else:
        grid = _for_people(frame, f"{_reduced(reduce)}{metric}", symmetric=interval == "t")
    tables.emit(grid, how, output, as_json=False)


def _reduced(reduce: str) -> str:
    return "" if reduce == "last" else f"{reduce} "


def _tell(frame: Comparison, short: Callable[[str], str]) -> None:
    """Tell of runs that are not in it as one may think."""
    for key, what in (
        ("left_out", "without a value, left out"),
        ("nan", "with NaN among the values"),
        ("repeated", "with the same parameters, such as a repeated seed"),
    ):
        found = [
            " = ".join(map(short, one)) if isinstance(one, tuple) else short(one)
            for one in frame.attrs.get(key, ())
        ]
        if found:
            more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
            terminal.note(f"note: {what}: {', '.join(found[:_MOST_NAMED])}{more}")


def _emit_json(frame: Comparison, output: Path | None) -> None:
    grid = from_frame(frame.assign(runs=frame.runs()))
    document: dict[str, Any] = {
        key: frame.attrs.get(key) for key in ("metric", "reduce", "over", "interval", "level")
    }
    document["groups"] = [dict(zip(grid.names, row, strict=True)) for row in grid.rows()]
    document |= {key: frame.attrs.get(key, []) for key in ("left_out", "nan", "repeated")}
    tables.emit_text(tables.as_json(document), output)


def _for_people(frame: Comparison, title: str, *, symmetric: bool) -> Grid:
    """The parameters, the number of runs, the mean with its interval, and the range."""
    from cox.analysis.shown import STATISTICS, groups

    grid = from_frame(frame)
    columns = {column.name: column for column in grid.columns[-len(STATISTICS) :]}
    shown = [*groups(grid, len(STATISTICS)), columns["n"]]
    columns["n"].rank = PINNED + 1
    if any(columns["n_nan"].cells):
        shown.append(Column("n_nan", columns["n_nan"].cells, "NaN"))
    cells = zip(columns["mean"].cells, columns["low"].cells, columns["high"].cells, strict=True)
    means = [with_interval(*three, symmetric=symmetric) for three in cells]
    shown.append(Column("mean", means, title, rank=PINNED, numeric=True))
    for i, name in enumerate(("iqm", "min", "max")):
        columns[name].shown, columns[name].rank = "{:.4g}".format, DECORATION + i
        shown.append(columns[name])
    return Grid(shown)


def with_interval(mean: float, low: float, high: float, *, symmetric: bool) -> str:
    """A mean and its interval, to two digits of the interval's half width: `0.912 ± 0.011`."""
    half = (high - low) / 2
    if not math.isfinite(half):
        return f"{mean:.4g}"
    if half == 0:
        return f"{mean:.4g} ± 0"
    digits = min(12, max(0, 1 - math.floor(math.log10(half))))
    if symmetric:
        return f"{mean:.{digits}f} ± {half:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
