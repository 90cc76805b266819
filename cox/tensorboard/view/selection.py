"""Which runs of a folder TensorBoard is to show. Runs are only read, and nothing is written anywhere."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cox import metadata, predicates
from cox.analysis.parameters import identity
from cox.errors import CollectionWarning, CoxError, PredicateError, ViewError, unknown, warn
from cox.objects.trust import Trust
from cox.objects.unreadable import Unreadable
from cox.schema import Column
from cox.storage import layout, snapshot
from cox.storage.layout import EXP_ID
from cox.storage.scan import State, find_runs, state_of
from cox.tensorboard.view import names

#: How long a filter may take on one value, in seconds.
_PATIENCE = 2.0


def links(
    logdir: str | os.PathLike[str],
    format_str: str | None = None,
    *,
    metadata_table: str = layout.METADATA_TABLE,
    filters: Iterable[tuple[str, str]] = (),
    where: str | None = None,
    nested: bool = False,
) -> dict[str, Path]:
    """The runs of a folder that pass all filters, under the names that TensorBoard is to show.

    A run without metadata is shown under its own name, unless parameters are asked for. A run that cannot
    be shown (no parameters that are asked for, no TensorBoard directory, damage) is left out with a
    `CollectionWarning`.

    Args:
        logdir: The folder of runs.
        format_str: What a name begins with: `{param}`, or `{param:spec}` with a format spec of Python's,
            stands for a parameter. `-<exp_id>` is always appended. Without one, a name is made of the
            parameters that differ between the runs.
        metadata_table: The table whose first row holds a run's parameters.
        filters: Pairs of a parameter and a regular expression: `re.match(regex, str(value))` keeps a run.
        where: A condition on the parameters, such as `"lr < 0.1 and arch == 'resnet18'"`; see
            `cox.predicates`.
        nested: Whether to look for runs in directories that are not runs, too, however deep.

    Returns:
        Names to directories of event files, in the order of the runs. All names are distinct, and safe
        as file names.

    Raises:
        ViewError: There is nothing to show, or no such parameter; the error says what there is.
        PredicateError: The condition cannot be understood; shows where.

    Example:
        >>> links("runs", "lr-{lr}", filters=[("arch", "resnet")])
    """
    return named(Selection(logdir, format_str, metadata_table, filters, where, nested=nested).first())


def named(shown: Iterable[Shown]) -> dict[str, Path]:
    """Names to directories of event files."""
    return {one.name: one.run.tensorboard_dir for one in shown}


@dataclass(frozen=True, slots=True)
class Shown:
    """A run that is to be shown, and how it is called.

    Attributes:
        name: What TensorBoard calls it.
        exp_id: Its path in the folder of runs.
        run: Where it lies.
    """

    name: str
    exp_id: str
    run: layout.RunLayout


class Selection:
    """Which runs of a folder are shown, now and later. The arguments are those of `links`.

    Args:
        needs_events: Whether a run without a TensorBoard directory cannot be shown.
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        format_str: str | None = None,
        metadata_table: str = layout.METADATA_TABLE,
        filters: Iterable[tuple[str, str]] = (),
        where: str | None = None,
        *,
        needs_events: bool = True,
        nested: bool = False,
    ) -> None:
        self._logdir = layout.absolute(logdir)
        self._format = format_str
        self._table = metadata_table
        self._regexes = [(param, _compiled(param, regex)) for param, regex in filters]
        self._predicate = predicates.parse(where) if where is not None else None
        self._needs_events = needs_events
        self._nested = nested
        self._seen: dict[str, tuple[State, _Run | str]] = {}
        self._differing: dict[str, None] = {}
        self._known = {EXP_ID}
        self._told: set[str] = set()
        self._tables: set[str] = set()
        self._without: list[str] = []
        self._was_there = False
        self._needs_params = format_str is not None or bool(self._regexes) or where is not None

    def first(self, *, wait: bool = False) -> list[Shown]:
        """What is shown at first, in the order of the runs.

        Args:
            wait: Whether nothing is shown for now where runs, or their metadata, may still come.

        Raises:
            ViewError: Nothing is, or no run has a parameter that is asked for.
        """
        if wait and not self._logdir.exists():
            return []
        if not self._logdir.is_dir():
            raise ViewError(f"--logdir: {self._logdir} is no directory of runs")
        runs = self._read()
        if not self._seen:
            self._check_empty(wait=wait)
        if not runs and self._needs_params and not (wait and self._table == metadata.METADATA):
            raise ViewError(
                unknown(
                    f"--metadata-table: no run in {self._logdir} has a row in a table",
                    self._table,
                    sorted(self._tables),
                )
            )
        if not runs and wait:
            return self._shown(runs)[1]
        known = sorted({EXP_ID}.union(*(run.params for run in runs)))
        asked = [("--filter-param", param) for param, _ in self._regexes]
        asked += [("--where", param) for param in sorted(self._predicate.names)] if self._predicate else []
        for option, param in asked:
            if param not in known:
                raise ViewError(names.no_parameter(option, param, known))
        there, shown = self._shown(runs)
        if not shown:
            raise ViewError(_nothing_left(there, self._regexes, self._predicate, self._logdir))
        return shown

    def refreshed(self) -> list[Shown]:
        """What is shown now: what has changed is read again, and what cannot be shown is told of once.

        Raises:
            OSError: The folder cannot be listed.
        """
        return self._shown(self._read())[1]

    def _check_empty(self, *, wait: bool) -> None:
        """Refuse a folder that has no runs, or only one that may get some."""
        if layout.RunLayout(self._logdir).store_file.exists():
            raise ViewError(f"--logdir: {self._logdir} is a run: give the folder it is in")
        if not wait:
            raise ViewError(f"--logdir: {self._logdir} has no runs")

    def _shown(self, found: Sequence[_Run]) -> tuple[list[dict[str, Any]], list[Shown]]:
        """The parameters of all that could be shown, and what is."""
        self._warn_of(self._without, f"a row in the table {self._table!r}")
        self._known.update(*(run.params for run in found))
        known = sorted(self._known)
        if not found:
            return [], []
        pieces = [] if self._format is None else names.parse(self._format, known)
        params = [param for param, _ in self._regexes]
        params += sorted(self._predicate.names) if self._predicate else []
        params += [piece.param for piece in pieces if isinstance(piece, names.Field)]
        if self._format is None:
            params += self._differing_in(found, known)
        whole = list(self._with_values(found, params))
        shown: list[Shown] = []
        taken: set[str] = set()
        odd: list[tuple[_Run, CoxError]] = []
        for run, values in whole:
            try:
                if not self._passes(run, values):
                    continue
                if self._format is None:
                    pieces = self._pieces(run)
                is_plain = self._format is None and not pieces
                prefix = None if is_plain else names.render(pieces, values, run.exp_id)
            except (PredicateError, names.FormatSpecError) as error:  # its values are of another kind
                odd.append((run, error))
                continue
            name = next(name for name in names.candidates(prefix, run.exp_id) if name not in taken)
            taken.add(name)
            shown.append(Shown(name, run.exp_id, run.layout))
        if odd and not shown:
            raise odd[0][1]
        for run, why in odd:
            self._warn(_broken(run.layout, why))
        return [values for _, values in whole], shown

    def _passes(self, run: _Run, values: Mapping[str, Any]) -> bool:
        if self._predicate is not None and not self._predicate.holds(values):
            return False
        return all(_matches(regex, param, str(values[param]), run.exp_id) for param, regex in self._regexes)

    def _differing_in(self, found: Sequence[_Run], known: Sequence[str]) -> list[str]:
        """The parameters that differ between runs, or did before: they never become fewer."""
        values: dict[str, set[Hashable]] = {}
        for run in found:
            for param in known if run.params else ():  # it may still get its metadata
                if param != EXP_ID and run.params.is_plain(param):
                    values.setdefault(param, set()).add(identity(run.params.get(param)))
        self._differing.update((param, None) for param, seen in values.items() if len(seen) > 1)
        return list(self._differing)

    def _pieces(self, run: _Run) -> list[str | names.Field]:
        """The parts of a name that nobody asked for: what differs of what the run has."""
        pieces: list[str | names.Field] = []
        for param in self._differing:
            if param in run.params:
                pieces += [f"{',' if pieces else ''}{param}=", names.Field(param, "")]
        return pieces

    def _read(self) -> list[_Run]:
        """The runs that may be shown. Of those that are as they were nothing is read.

        Raises:
            OSError: The folder cannot be listed. One that was never there yet has no runs.
        """
        self._was_there = self._was_there or self._logdir.exists()
        runs: list[_Run] = []
        self._without = []
        before, self._seen = self._seen, {}
        for run in find_runs(self._logdir, nested=self._nested) if self._was_there else ():
            name = os.path.relpath(run.root, self._logdir)
            try:
                state = state_of(os.fspath(run.root))
            except OSError as error:
                self._warn(_broken(run, error))
                continue
            is_known = name in before and before[name][0] == state
            one = before[name][1] if is_known else self._read_or_problem(run, name)
            self._seen[name] = state, one
            if isinstance(one, str):
                self._warn(one)
            elif not one.params and self._needs_params:
                self._without.append(name)
            else:
                runs.append(one)
        return runs

    def _read_or_problem(self, run: layout.RunLayout, name: str) -> _Run | str:
        try:
            return self._read_run(run, name)
        except (CoxError, OSError) as error:
            return _broken(run, error)

    def _read_run(self, run: layout.RunLayout, name: str) -> _Run:
        now = snapshot.read(run, tables=[self._table])
        now.warn(run.root.name)
        self._tables.update(now.tables)
        rows = now.tables.get(self._table)
        if rows is None or rows.nrows == 0:
            return _Run(run, name, metadata.RunParameters({}))

        def decode(column: Column, cell: Any) -> Any:
            return metadata.decoded(column, cell, run, Trust(run), self._table)

        first = metadata.first_row(rows, is_ranked=now.has_ranks(self._table))
        return _Run(run, name, metadata.RunParameters(first, decode, lambda: run))

    def _with_values(
        self, found: Iterable[_Run], params: Sequence[str]
    ) -> Iterator[tuple[_Run, dict[str, Any]]]:
        """The runs that TensorBoard can show, each with these parameters decoded."""
        without = []
        for run in found:
            if self._needs_events and not run.layout.tensorboard_dir.is_dir():
                without.append(run.exp_id)
                continue
            values = {param: run.value(param) for param in params}
            broken = next((value for value in values.values() if isinstance(value, Unreadable)), None)
            if broken is not None:
                self._warn(_broken(run.layout, broken.reason))
            else:
                yield run, values
        self._warn_of(without, f"a directory {layout.TENSORBOARD_DIR!r}")

    def _warn_of(self, without: Sequence[str], what: str) -> None:
        fresh = [name for name in without if f"{name}: {what}" not in self._told]
        self._told.update(f"{name}: {what}" for name in fresh)
        if fresh:
            warn(f"left out, for want of {what}: {', '.join(fresh)}", CollectionWarning)

    def _warn(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            warn(sentence, CollectionWarning)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run, its path in the folder of runs, and its parameters: none if it has no row of metadata."""

    layout: layout.RunLayout
    exp_id: str
    params: metadata.RunParameters

    def value(self, param: str) -> Any:
        """A parameter; None where the run lacks it."""
        return self.exp_id if param == EXP_ID else self.params.get(param)


def _broken(run: layout.RunLayout, error: object) -> str:
    return f"run {run.root.name} is left out: {error}"


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
    predicate: predicates.Predicate | None,
    logdir: Path,
) -> str:
    if not there:
        return f"--logdir: none of the runs in {os.fspath(logdir)} can be shown"
    asked = [f"--filter-param {param} {regex.pattern!r}" for param, regex in regexes]
    params = [param for param, _ in regexes]
    if predicate is not None:
        asked.append(f"--where {predicate.text!r}")
        params += sorted(predicate.names)
    told = metadata.values_told(there, params)
    return f"none of {len(there)} runs passes {' '.join(asked)}; the values there are: {told}"
