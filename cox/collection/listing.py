"""A line for each run: what `cox ls` prints, and a reader shows in a notebook. Loads no pandas."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox import steps
from cox.collection.naming import shortening
from cox.display import times
from cox.display.grid import DECORATION, PINNED, Column, Grid
from cox.display.text import briefly
from cox.errors import ColumnNotFoundError, unknown
from cox.storage.status import CRASHED, FAILED, FINISHED, RUNNING, UNKNOWN

if TYPE_CHECKING:
    from cox.collection.moment import Moment
    from cox.collection.runs import Runs
    from cox.storage.status import Status

COLOURS = {RUNNING: "cyan", FINISHED: "green", FAILED: "red", CRASHED: "magenta", UNKNOWN: "dim"}


@dataclass(slots=True)
class Run:
    """A run, as a line of a list.

    Attributes:
        name: Its name in its folder.
        root: Its directory.
        status: How it is.
        params: Its parameters.
        last: For each table the last row.
    """

    name: str
    root: Path
    status: Status
    params: dict[str, Any]
    last: dict[str, dict[str, Any]] = field(default_factory=dict)


#: What can be told of a run without reading its rows.
FACTS: dict[str, Callable[[Run], Any]] = {
    "id": lambda run: run.name,
    "state": lambda run: run.status.state,
    "started": lambda run: times.moment(run.status.started),
    "duration": lambda run: run.status.duration,
    "host": lambda run: run.status.host,
}


# --- Runs


def newest(source: Runs) -> list[str]:
    """All runs, first those that began or ended last: by the time of their `run.json`, one look each."""
    changed = {name: _changed(os.fspath(source.layout(name).root)) for name in source.names}
    return sorted(changed, key=lambda name: -changed[name])


def _changed(root: str) -> float:
    for path in (f"{root}/.cox/run.json", root):
        try:
            return os.stat(path).st_mtime  # noqa: PTH116 - a Path costs as much again
        except OSError:
            continue
    return 0.0


def read_runs(now: Moment, names: Iterable[str], *, rows: bool = True, skip: bool = False) -> list[Run]:
    """Read what is shown of runs, in their order.

    Args:
        now: The folder.
        names: The runs.
        rows: Whether to read the last row of each table.
        skip: Whether to leave out, with a warning, runs that cannot be read, also where the reader does not.
    """
    statuses = now.statuses(names, skip=skip)
    runs = {
        name: Run(name, now.runs.layout(name).root, statuses[name], dict(params))
        for name, params in now.parameters(statuses, skip=skip).items()
    }
    for table in now.tables_of(runs) if rows and runs else ():
        for name, last in now.lasts(runs, table, skip=skip).items():
            if last:
                runs[name].last[table] = {column: cell for column, cell in last.items() if cell is not None}
    return list(runs.values())


def as_html(now: Moment) -> str:
    """The newest runs, as a notebook shows them."""
    from cox.display import html

    names, total = newest(now.runs)[: html.MOST_ROWS], len(now.runs)
    shown = grid(read_runs(now, names, skip=True), now.runs.names)
    note = f"the newest {len(names)}; .runs() has all of them" if len(names) < total else ""
    return html.of_grid(f"{html.counted(total, 'run')} in {now.runs.directory}", note, shown)


# --- Columns


def grid(
    runs: Sequence[Run],
    names: Iterable[str],
    *,
    columns: Sequence[str] | None = None,
    first: str | None = None,
    full_ids: bool = False,
    everything: bool = False,
) -> Grid:
    """List runs: how each is, the parameters in which they differ, and the last row of each table.

    Args:
        runs: The runs to list.
        names: The names of all runs there are, from which those that are listed must be told apart.
        columns: The columns to show; by default what tells the runs apart and came of them.
        first: The column that the reader is interested in most, such as the one that sorts.
        full_ids: Whether to leave UUIDs and long names whole.
        everything: Whether all parameters count, also those that are the same in all runs.

    Raises:
        ColumnNotFoundError: There is no such column; names those there are.
    """
    known, metrics = _known(runs), _metrics(runs)
    if columns is None:
        params = [name for name in known if name not in FACTS and name not in metrics]
        told = [name for name in params if everything or _differs(runs, known[name])]
        chosen = ["id", "state", "started", "duration", *told, *metrics]
        ranks = _ranks(told, metrics)
    else:
        chosen = list(dict.fromkeys(["id", *(full_name(name, list(known)) for name in columns)]))
        ranks = {name: i for i, name in enumerate(chosen)}
    if first is not None:
        ranks[full_name(first, list(known))] = PINNED + 1
    titles = Counter(metrics[name][1] if name in metrics else name for name in chosen)
    made = []
    for name in chosen:
        column = Column(name, [known[name](run) for run in runs], rank=ranks[name])
        if name in metrics:
            short = metrics[name][1]
            column.title = short if titles[short] == 1 else None
            column.shown = briefly
        elif name in FACTS:
            _dress(column, names, full_ids=full_ids)
        else:
            column.tells = True
        made.append(column)
    return Grid(made)


def _dress(column: Column, names: Iterable[str], *, full_ids: bool) -> None:
    """What a fact looks like."""
    if column.name == "id":
        column.rank, column.whole = PINNED, full_ids
        if not full_ids:
            column.shown = shortening(names)
            column.among = list(map(column.shown, names))
    elif column.name == "state":
        column.style, column.whole = COLOURS.__getitem__, True
    elif column.name in ("started", "duration"):
        column.shown, column.whole = times.ago if column.name == "started" else times.lasting, True


def _ranks(params: Sequence[str], metrics: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    """What stays in a narrow table: metrics and parameters in turns, then steps, then times."""
    results = [name for name, (_, column) in metrics.items() if column not in steps.STEP_COLUMNS]
    counters = [name for name in metrics if name not in results]
    ranks = {"id": PINNED, "state": PINNED + 1, "started": DECORATION, "duration": DECORATION + 1}
    ranks |= {name: 10 + 2 * i for i, name in enumerate(results)}
    ranks |= {name: 11 + 2 * i for i, name in enumerate(params)}
    last = 11 + 2 * max(len(results), len(params))
    return ranks | {name: min(last, DECORATION - 1) for name in counters}


def getter(wanted: str, runs: Sequence[Run]) -> Callable[[Run], Any]:
    """What gets the value of a column out of a run.

    Raises:
        ColumnNotFoundError: There is no such column; names those there are.
    """
    known = _known(runs)
    return known[full_name(wanted, list(known))]


def full_name(wanted: str, known: Sequence[str]) -> str:
    """The column of that name, or the only one that ends in it after a dot.

    Raises:
        ColumnNotFoundError: There is none; names those there are. Or there are several.
    """
    if wanted in known:
        return wanted
    ends = [name for name in known if name.endswith(f".{wanted}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ColumnNotFoundError(f"there are several columns {wanted!r}: {', '.join(ends)}")
    raise ColumnNotFoundError(unknown("there is no column", wanted, known))


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


def _known(runs: Sequence[Run]) -> dict[str, Callable[[Run], Any]]:
    """All columns that there are: facts, parameters, and last values as `table.column`."""
    known = dict(FACTS)
    for name in dict.fromkeys(name for run in runs for name in run.params):
        # a parameter may be called like a fact
        known[name if name not in FACTS else f"params.{name}"] = partial(_param, name)
    for full, (table, column) in _metrics(runs).items():
        known.setdefault(full, partial(_last, table, column))
    return known


def _param(name: str, run: Run) -> Any:
    return run.params.get(name)


def _last(table: str, column: str, run: Run) -> Any:
    return run.last.get(table, {}).get(column)


def _metrics(runs: Sequence[Run]) -> dict[str, tuple[str, str]]:
    """The last values there are, `table.column`, with table and column."""
    pairs = ((table, column) for run in runs for table, last in run.last.items() for column in last)
    return {f"{table}.{column}": (table, column) for table, column in pairs}


def _differs(runs: Sequence[Run], get: Callable[[Run], Any]) -> bool:
    """Whether a parameter tells runs apart."""
    from cox.analysis.parameters import identity

    return len(runs) == 1 or len({identity(get(run)) for run in runs}) > 1
