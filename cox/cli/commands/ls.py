"""`cox ls`: a line for each run. Reads no more runs than it shows, unless it must choose among all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cox.cli import options, screen, tables, terminal
from cox.cli.runs import reader_at
from cox.collection import listing
from cox.collection.listing import Run
from cox.display.fitting import fit
from cox.display.text import printable
from cox.storage.status import STATES

if TYPE_CHECKING:
    from cox.collection.moment import Moment
    from cox.display.grid import Grid

#: How many runs are listed where there is no terminal to be filled.
_MOST = 20
#: Lines of a terminal that are left to what stands around the list.
_AROUND = 5


@click.command()
@options.path
@click.option("--where", metavar="COND", help='Only runs with parameters such as "lr < 0.1".')
@click.option(
    "--state", multiple=True, type=click.Choice(STATES), help="Only runs in this state. Repeatable."
)
@click.option(
    "--sort", metavar="COLUMN", help="Sort by a column, or a part of its name: acc for results.acc."
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option(
    "-n", "limit", metavar="N", type=click.IntRange(1), help="How many runs; by default a screenful, or 20."
)
@click.option("--all", "everything", is_flag=True, help="All runs.")
@options.columns
@click.option("--full-ids", is_flag=True, help="Show UUIDs and long names whole.")
@options.nested
@options.output
def ls(
    path: Path,
    where: str | None,
    state: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    limit: int | None,
    everything: bool,
    columns: list[str] | None,
    full_ids: bool,
    nested: bool,
    format: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """List the runs of the folder PATH, first those that began or ended last.

    Shows how each run is, the parameters in which the listed runs differ, and the last row of each table.
    What does not fit into the terminal is named; --columns chooses. In a pipe this is CSV with all parameters
    and whole ids; --format table prints the same as in a terminal, as wide as it is.

    \b
    Examples:
      cox ls runs --where "lr < 0.1 and arch == 'resnet'" --sort acc --reverse
      cox ls runs --state failed --state crashed --json
    """  # noqa: D301
    if limit is not None and everything:
        raise click.UsageError("-n and --all: choose one of them")
    how = tables.format_of(format, output, as_json)
    from cox.collection.moment import Moment

    reader = reader_at(path, nested=nested, empty=True)
    now = Moment(reader.source)
    names = _selected(now, where, state)
    total = len(names)
    if where is not None and not state:  # a run that is said to have ended then shows all its rows
        now = Moment(reader.source)
    ordered = _sorted(now, names, sort, reverse)
    page = ordered if everything else ordered[: limit or _screenful()]
    wanted = not columns or not all(name in listing.FACTS for name in columns)
    shown = listing.read_runs(now, page, rows=wanted)
    if sort is None:
        shown.sort(key=lambda run: run.status.started or 0.0, reverse=not reverse)
    if how == "json":
        tables.emit_text(tables.as_json(_document(path, total, shown)), output)
        return
    if not shown:
        click.echo(_nothing(path, len(reader), nested=nested), err=True)
        return
    for_people = how not in ("csv", "jsonl", "parquet")
    grid = listing.grid(
        shown, reader.exp_ids, columns=columns, first=sort, full_ids=full_ids, everything=not for_people
    )
    if (
        everything
        and output is None
        and how == "table"
        and terminal.is_terminal()
        and len(shown) > _screenful()
    ):
        _page(grid)
    else:
        tables.emit(grid, how, output, as_json=False, whole=True)
    if output is None:
        _tell_count(len(page), total, whole=total == len(reader))


def _screenful() -> int:
    return max(1, terminal.size().lines - _AROUND) if terminal.is_terminal() else _MOST


def _selected(now: Moment, where: str | None, states: Sequence[str]) -> list[str]:
    """The runs that pass both filters, the newest first."""
    names = listing.newest(now.runs)
    statuses = now.statuses(names) if states else {}
    if where is not None:
        from cox.collection.overview import filtered

        names = filtered(now.parameters(names), where, now.runs.metadata)
    return [name for name in names if not states or (name in statuses and statuses[name].state in states)]


def _sorted(now: Moment, names: list[str], sort: str | None, reverse: bool) -> list[str]:
    if sort is None:
        return names[::-1] if reverse else names
    from cox.analysis.parameters import is_missing, order

    runs = listing.read_runs(now, names, rows=sort not in listing.FACTS)
    get = listing.getter(sort, runs)
    values = {run.name: get(run) for run in runs}
    there = [name for name, value in values.items() if not is_missing(value) and value == value]
    there.sort(key=lambda name: order(_sortable(values[name])), reverse=reverse)
    return list(dict.fromkeys([*there, *values]))  # those without a value come last, either way


def _sortable(value: Any) -> Any:
    return value.timestamp() if hasattr(value, "timestamp") else value


# --- Printing


def _page(grid: Grid) -> None:
    fitted = fit(grid, terminal.size().columns)
    click.echo_via_pager(screen.rendered(fitted) + "\n")
    screen.name_hidden(fitted.hidden)


def _tell_count(shown: int, total: int, *, whole: bool) -> None:
    runs = "run" if total == 1 else "runs"
    runs += "" if whole else " that fit"
    if shown == total:
        if terminal.is_terminal():
            terminal.note(f"{total:,} {runs}")
        return
    terminal.note(f"{shown:,} of {total:,} {runs}; -n {min(total, max(100, shown * 5))} or --all for more")


def _nothing(path: Path, runs: int, *, nested: bool) -> str:
    if runs:
        return f"none of the {runs:,} runs in {printable(path)} fits"
    return f"no runs in {printable(path)}" + ("" if nested else "; --nested looks deeper")


def _document(path: Path, total: int, runs: Sequence[Run]) -> dict[str, Any]:
    return {"path": str(path), "total": total, "runs": [listing.as_document(run) for run in runs]}
