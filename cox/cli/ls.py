"""`cox ls`: a line for each run. Reads no more runs than it shows, unless it must choose among all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cox.cli import options, screen, tables, terminal
from cox.cli import runs as of_runs
from cox.cli.runs import Run
from cox.display import times
from cox.display.grid import WHOLE_NAME, Column, Grid
from cox.display.text import printable, text
from cox.errors import ColumnNotFoundError, did_you_mean

if TYPE_CHECKING:
    from cox.readers import CollectionReader

STATES = ("running", "finished", "failed", "crashed", "unknown")
#: How many runs are listed where there is no terminal to be filled.
_MOST = 20
#: Lines of a terminal that are left to what stands around the list.
_AROUND = 5
_COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "crashed": "magenta", "unknown": "dim"}

#: What can be told of a run without reading its rows.
_FACTS: dict[str, Callable[[Run], Any]] = {
    "id": lambda run: run.name,
    "state": lambda run: run.status.state,
    "started": lambda run: times.moment(run.status.started),
    "duration": lambda run: run.status.duration,
    "host": lambda run: run.status.host,
}


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
@click.option("--full-ids", is_flag=True, help="Show UUIDs whole.")
@options.nested
@options.as_json
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
    as_json: bool,
) -> None:
    """List the runs of the folder PATH, first those that began or ended last.

    Shows how each run is, the parameters in which the listed runs differ, and the last row of each table.
    In a pipe this is CSV with all parameters and whole ids.

    \b
    Examples:
      cox ls runs --where "lr < 0.1 and arch == 'resnet'" --sort acc --reverse
      cox ls runs --state failed --state crashed --json
    """  # noqa: D301
    if limit is not None and everything:
        raise click.UsageError("-n and --all: choose one of them")
    reader = of_runs.reader_at(path, nested=nested, empty=True)
    names = _chosen(reader, where, state)
    total = len(names)
    ordered = _sorted(reader, names, sort, reverse)
    page = ordered if everything else ordered[: limit or _screenful()]
    wanted = not columns or not all(name in _FACTS for name in columns)
    shown = of_runs.described(reader, page, rows=wanted)
    if sort is None:
        shown.sort(key=lambda run: run.status.started or 0.0, reverse=not reverse)
    if as_json:
        click.echo(tables.as_json(_document(path, total, shown)), nl=False)
        return
    if not shown:
        click.echo(_nothing(path, len(reader), nested=nested), err=True)
        return
    _print(shown, columns, None if full_ids else reader.exp_ids, pages=everything)
    _tell_count(len(page), total, whole=total == len(reader))


def _screenful() -> int:
    return max(1, terminal.size().lines - _AROUND) if terminal.is_terminal() else _MOST


def _chosen(reader: CollectionReader, where: str | None, states: Sequence[str]) -> list[str]:
    """The runs that pass both filters, the newest first."""
    names = of_runs.newest(reader)
    if where is not None:
        from cox.collection.overview import filtered

        names = filtered(of_runs.parameters(reader, names), where, "metadata")
    if states:
        found = of_runs.statuses(reader, names)
        names = [name for name, status in found.items() if status.state in states]
    return names


def _sorted(reader: CollectionReader, names: list[str], sort: str | None, reverse: bool) -> list[str]:
    if sort is None:
        return names[::-1] if reverse else names
    from cox.collection.parameters import is_missing, order

    runs = of_runs.described(reader, names, rows=sort not in _FACTS)
    get = _getter(sort, runs)
    values = {run.name: get(run) for run in runs}
    there = [name for name, value in values.items() if not is_missing(value) and value == value]
    there.sort(key=lambda name: order(_sortable(values[name])), reverse=reverse)
    return list(dict.fromkeys([*there, *values]))  # those without a value come last, either way


def _sortable(value: Any) -> Any:
    return value.timestamp() if hasattr(value, "timestamp") else value


# --- Columns


def _known(runs: Sequence[Run]) -> dict[str, Callable[[Run], Any]]:
    """All columns that there are: facts, parameters, and last values as `table.column`."""
    found = dict(_FACTS)
    for name in dict.fromkeys(name for run in runs for name in run.params):
        # a parameter may be called like a fact
        found[name if name not in _FACTS else f"params.{name}"] = partial(_param, name)
    for full, (table, column) in _metrics(runs).items():
        found.setdefault(full, partial(_last, table, column))
    return found


def _param(name: str, run: Run) -> Any:
    return run.params.get(name)


def _last(table: str, column: str, run: Run) -> Any:
    return run.last.get(table, {}).get(column)


def _metrics(runs: Sequence[Run]) -> dict[str, tuple[str, str]]:
    """The last values there are, `table.column`, with table and column."""
    pairs = ((table, column) for run in runs for table, last in run.last.items() for column in last)
    return {f"{table}.{column}": (table, column) for table, column in pairs}


def _full_name(wanted: str, known: Sequence[str]) -> str:
    """The column of that name, or the only one that ends in it behind a dot."""
    if wanted in known:
        return wanted
    ends = [name for name in known if name.endswith(f".{wanted}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ColumnNotFoundError(f"there are several columns {wanted!r}: {', '.join(ends)}")
    raise ColumnNotFoundError(
        f"there is no column {wanted!r}; there are {', '.join(known)}{did_you_mean(wanted, known)}"
    )


def _getter(wanted: str, runs: Sequence[Run]) -> Callable[[Run], Any]:
    known = _known(runs)
    return known[_full_name(wanted, list(known))]


def _names(
    runs: Sequence[Run], columns: list[str] | None, known: Mapping[str, Callable[[Run], Any]]
) -> list[str]:
    """The columns to show: those asked for, or what tells the runs apart and came of them."""
    if columns is not None:
        return list(dict.fromkeys(["id", *(_full_name(name, list(known)) for name in columns)]))
    metrics = _metrics(runs)
    params = [name for name in known if name not in _FACTS and name not in metrics]
    return ["id", "state", "started", "duration", *(p for p in params if _differs(runs, known[p])), *metrics]


def _differs(runs: Sequence[Run], get: Callable[[Run], Any]) -> bool:
    """Whether a parameter tells runs apart. In a pipe all do: columns must not depend on the rows."""
    from cox.collection.parameters import identity

    if len(runs) == 1 or not terminal.is_terminal():
        return True
    return len({identity(get(run)) for run in runs}) > 1


def _grid(runs: Sequence[Run], columns: list[str] | None, shortened: list[str] | None) -> Grid:
    known, metrics = _known(runs), _metrics(runs)
    names = _names(runs, columns, known)
    titles = Counter(metrics[name][1] if name in metrics else name for name in names)
    looks: dict[str, Callable[[Any], str]] = {"started": times.ago, "duration": times.lasting}
    if shortened is not None:
        looks["id"] = of_runs.shortening(shortened)
    made = [Column(name, [known[name](run) for run in runs], shown=looks.get(name)) for name in names]
    for column in made:
        if column.name == "id":
            column.least = WHOLE_NAME
        if column.name == "state":
            column.style, column.least = _COLOURS.__getitem__, len("finished")
        if column.name in metrics:
            short = metrics[column.name][1]
            column.title = short if titles[short] == 1 else None
            column.shown = _briefly
    return Grid(made)


def _briefly(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)


# --- Printing


def _print(
    runs: Sequence[Run], columns: list[str] | None, shortened: list[str] | None, *, pages: bool
) -> None:
    grid = _grid(runs, columns, shortened)
    if not terminal.is_terminal():
        tables.emit(grid, "csv", None, as_json=False)
        return
    made, hidden = screen.rendered(grid, terminal.size().columns, pinned=2)
    if pages and len(runs) > _screenful():
        click.echo_via_pager(made)
    else:
        click.echo(made, nl=False)
    if hidden:
        screen.tell_hidden(hidden)


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
    return {"path": str(path), "total": total, "runs": [as_document(run) for run in runs]}


def as_document(run: Run) -> dict[str, Any]:
    """A run for JSON."""
    status = run.status
    return {
        "id": run.name,
        "path": str(run.root),
        "state": status.state,
        "started": times.moment(status.started),
        "duration": status.duration,
        "host": status.host,
        "pid": status.pid,
        "error": status.error,
        "params": run.params,
        "last": run.last,
    }
