"""Which runs of a folder TensorBoard is to show. Runs are only read, and nothing is written anywhere."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cox import objects
from cox.collection.scan import find_runs
from cox.errors import CollectionWarning, CoxError, ViewError, did_you_mean, warn
from cox.schema import Column
from cox.storage import layout, snapshot
from cox.storage.columns import TableData
from cox.view import names

#: A run's own name is a parameter of every run, as it was upstream.
_EXP_ID = "exp_id"
#: How long a filter may take on one value, in seconds.
_PATIENCE = 2.0


def links(
    logdir: str | os.PathLike[str],
    format_str: str,
    *,
    metadata_table: str = "metadata",
    filters: Iterable[tuple[str, str]] = (),
) -> dict[str, Path]:
    """The runs of a folder that pass all filters, under the names that TensorBoard is to show.

    A run that cannot be shown (no metadata, no TensorBoard directory, damage) is left out with a
    `CollectionWarning`.

    Args:
        logdir: The folder of runs.
        format_str: What a name begins with: `{param}`, or `{param:spec}` with a format spec of Python's,
            stands for a parameter. `-<exp_id>` is always appended.
        metadata_table: The table whose first row holds a run's parameters.
        filters: Pairs of a parameter and a regular expression: `re.match(regex, str(value))` keeps a run.

    Returns:
        Names to directories of event files, in the order of the runs. All names are distinct, and safe
        as file names.

    Raises:
        ViewError: There is nothing to show, or no such parameter; the error says what there is.

    Example:
        >>> links("runs", "lr-{lr}", filters=[("arch", "resnet")])
    """
    regexes = [(param, _compiled(param, regex)) for param, regex in filters]
    found = _read_metadata(Path(logdir).absolute(), metadata_table)
    known = sorted({_EXP_ID}.union(*(run.cells for run in found)))
    for param, _ in regexes:
        if param not in known:
            raise ViewError(names.no_parameter("--filter-param", param, known))
    pieces = names.parse(format_str, known)
    params = [param for param, _ in regexes] + [
        piece.param for piece in pieces if isinstance(piece, names.Field)
    ]
    whole = list(_with_values(found, params))
    kept = [
        (run, values)
        for run, values in whole
        if all(_matches(regex, param, str(values[param]), run.exp_id) for param, regex in regexes)
    ]
    if not kept:
        raise ViewError(_nothing_left([values for _, values in whole], regexes, logdir))
    targets: dict[str, Path] = {}
    for run, values in kept:
        possible = names.candidates(names.render(pieces, values, run.exp_id), run.exp_id)
        targets[next(name for name in possible if name not in targets)] = run.layout.tensorboard_dir
    return targets


@dataclass(frozen=True, slots=True)
class _Run:
    """A run and the first row of its metadata table, objects still as they are stored."""

    layout: layout.RunLayout
    table: str
    cells: Mapping[str, tuple[Column, Any]]

    @property
    def exp_id(self) -> str:
        return self.layout.root.name

    def value(self, param: str) -> Any:
        """A parameter; None where the run lacks it."""
        column, cell = self.cells.get(param, (None, None))
        if param == _EXP_ID:
            return self.exp_id
        if column is None or cell is None:
            return None
        trust = objects.Trust(self.layout)
        where = f"column {param!r} of table {self.table!r} in run {self.layout.root}"
        if column.kind == "object":
            return objects.from_text(cell, trust, where)
        if column.kind == "pickle":
            return objects.read_pickle(self.layout.objects_dir / Path(cell).name, trust, where)
        return cell


def _read_metadata(logdir: Path, table: str) -> list[_Run]:
    if not logdir.is_dir():
        raise ViewError(f"--logdir: {logdir} is no directory of runs")
    runs = list(find_runs(logdir))
    if not runs:
        is_run = layout.RunLayout(logdir).store_file.exists()
        raise ViewError(
            f"--logdir: {logdir} {'is a run: give the folder it is in' if is_run else 'has no runs'}"
        )
    found: list[_Run] = []
    without: list[str] = []
    tables: set[str] = set()
    for run in runs:
        try:
            now = snapshot.read(run, tables=[table])
            rows = now.tables.get(table)
            cells = None if rows is None or rows.nrows == 0 else _first_row(rows)
        except (CoxError, OSError) as error:
            _warn_of_broken(run, error)
            continue
        now.warn(run.root.name)
        tables.update(now.tables)
        if cells is None:
            without.append(run.root.name)
        else:
            found.append(_Run(run, table, cells))
    if not found:
        raise ViewError(
            f"--metadata-table: no run in {logdir} has a row in a table {table!r}; "
            f"there are {sorted(tables)}{did_you_mean(table, tables)}"
        )
    _warn_of(without, f"a row in the table {table!r}")
    return found


def _first_row(rows: TableData) -> dict[str, tuple[Column, Any]]:
    first = {}
    for column in rows.schema:
        values, missing = rows.column(column)
        is_missing = missing is not None and bool(missing[0])
        first[column.name] = (column, None if is_missing else values[:1].tolist()[0])
    return first


def _with_values(found: Iterable[_Run], params: Iterable[str]) -> Iterator[tuple[_Run, dict[str, Any]]]:
    """The runs that TensorBoard can show, each with these parameters decoded."""
    without = []
    wanted = list(params)
    for run in found:
        if not run.layout.tensorboard_dir.is_dir():
            without.append(run.exp_id)
            continue
        try:
            values = {param: run.value(param) for param in wanted}
        except (CoxError, OSError, ImportError, AttributeError) as error:  # the latter two: its class is gone
            _warn_of_broken(run.layout, error)
        else:
            yield run, values
    _warn_of(without, f"a directory {layout.TENSORBOARD_DIR!r}")


def _warn_of_broken(run: layout.RunLayout, error: Exception) -> None:
    warn(f"run {run.root.name} is left out: {error}", CollectionWarning)


def _warn_of(without: Sequence[str], what: str) -> None:
    if without:
        warn(f"left out, for want of {what}: {', '.join(without)}", CollectionWarning)


def _compiled(param: str, regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise ViewError(f"--filter-param {param} {regex!r}: no regular expression: {error}") from error


def _matches(regex: re.Pattern[str], param: str, text: str, exp_id: str) -> bool:
    """Whether a value passes a filter. Some expressions try as many ways as there are, on some values.

    Raises:
        ViewError: It takes too long.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return regex.match(text) is not None

    def too_long(*_: object) -> None:
        raise ViewError(
            f"--filter-param {param} {regex.pattern!r}: takes more than {_PATIENCE:g} s on the value "
            f"{text[:80]!r} of run {exp_id}; write it without a repetition inside of a repetition"
        )

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        return regex.match(text) is not None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _nothing_left(
    there: Sequence[Mapping[str, Any]],
    regexes: Sequence[tuple[str, re.Pattern[str]]],
    logdir: str | os.PathLike[str],
) -> str:
    if not there:
        return f"--logdir: none of the runs in {os.fspath(logdir)} can be shown"
    asked = " ".join(f"--filter-param {param} {regex.pattern!r}" for param, regex in regexes)
    values = {param: Counter(str(values[param]) for values in there) for param, _ in regexes}
    shown = "; ".join(f"{param}: {_shortly(counts)}" for param, counts in values.items())
    return f"none of {len(there)} runs passes {asked}; the values there are: {shown}"


def _shortly(counts: Counter[str], most: int = 20) -> str:
    shown = [
        (f"{text!r}" if len(text) <= 80 else f"{text[:80]!r}…") + (f" ({runs} runs)" if runs > 1 else "")
        for text, runs in [*counts.items()][:most]
    ]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "")
