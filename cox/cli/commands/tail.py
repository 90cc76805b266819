"""`cox tail`: the last rows of a run, and those that come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from cox.cli import completion, options, rows, screen, tables, terminal
from cox.cli.rows import Row
from cox.cli.runs import find
from cox.collection.naming import shown_as, some
from cox.display.text import cut, padded, printable, text, width
from cox.errors import RunNotFoundError, TableNotFoundError, unknown
from cox.storage.layout import METADATA_TABLE

if TYPE_CHECKING:
    from cox.storage.columns import Array, TableData
    from cox.storage.layout import RunLayout
    from cox.storage.snapshot import Snapshot
    from cox.storage.status import Status

#: Seconds between two looks at a run.
PAUSE = 0.5
#: Seconds for which a run must look crashed, and as long as its process lives. While a run is being closed it
#: looks so, for it gives up its claim before it says that it ended.
GRACE, GRACE_OF_THE_LIVING = 1.0, 60.0
#: How many rows are remembered, to find out whether they were rewritten.
_REMEMBERED = 1000
_ENDED = {"finished": 0, "failed": 1, "crashed": 1, "unknown": 0}
_GAP = "  "


@click.command()
@options.run
@click.argument("table", required=False, shell_complete=completion.tables)
@click.option(
    "-n", "most", metavar="N", default=10, show_default=True, type=click.IntRange(0), help="How many rows."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as rows come, until the run ends.")
@options.columns
@click.option(
    "--format",
    "how",
    type=click.Choice(["table", "csv", "json", "jsonl"]),
    help="How to print: by default as a table in a terminal, as CSV in a pipe.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, or with -f an object a line.")
def tail(
    run: str,
    table: str | None,
    most: int,
    follow: bool,
    columns: list[str] | None,
    how: str | None,
    as_json: bool,
) -> None:
    """Print the last rows of TABLE of the run at RUN.

    TABLE can be left out where there is only one besides the metadata. With -f it goes on until the run
    ends, and the exit status is 0 if the run finished, 1 if it failed or crashed. Runs written by upstream
    cox do not record whether they are still going: tail stops there with a note. A header is printed again
    when a column was added; what else there is to tell goes to stderr.

    \b
    Examples:
      cox tail runs/3f2a
      cox tail runs/3f2a results -f --columns step,loss
    """  # noqa: D301
    how = tables.format_of(how, None, as_json)
    layout = find(run)
    if follow:
        printer = _Aligned() if how == "table" else _Csv() if how == "csv" else _JsonLines()
        raise SystemExit(_Following(layout, table, most, columns, printer).run())
    from cox.storage import snapshot

    now = snapshot.read(layout)
    now.warn(layout.root.name)
    name = _choose(now, table, layout)
    if name is None:
        raise TableNotFoundError(_no_table(table, now, layout))
    chosen = now.tables[name]
    names = rows.names_of(chosen, columns)
    grid = rows.grid(names, rows.last(chosen, names, most))
    tables.emit(grid, how, None, as_json=False, whole=True)


def _choose(now: Snapshot, asked: str | None, run: RunLayout) -> str | None:
    """The table that was asked for, by name or as it is shown, or the only one; None if it is not there."""
    if asked is not None:
        alike = shown_as(asked, list(now.tables))
        if len(alike) > 1:
            raise click.UsageError(
                f"{len(alike)} tables of {run.root.name} are shown as {asked}: {some(alike)}"
            )
        return alike[0] if alike else None
    names = [name for name in now.tables if name != METADATA_TABLE]
    if len(names) > 1:
        raise click.UsageError(f"{run.root.name} has the tables {', '.join(map(repr, names))}: name one")
    return names[0] if names else None


def _no_table(asked: str | None, now: Snapshot, run: RunLayout) -> str:
    if asked is None:
        only = " but its metadata" if METADATA_TABLE in now.tables else ""
        return f"run {run.root} has no table{only}; -f waits for one"
    return unknown(f"run {run.root} has no table", asked, now.tables)


# --- Following


@dataclass(slots=True)
class _Seen:
    """What was printed of one writer's rows: how many there are, and the last of them as text."""

    count: int = 0
    kept: list[str] = field(default_factory=list)

    @property
    def first_kept(self) -> int:
        return self.count - len(self.kept)


def _grace(status: Status) -> float:
    """How long a run may look crashed before it is called so."""
    import socket

    if status.pid is None or status.host != socket.gethostname():
        return GRACE
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return 0.0
    except OSError:  # another user's
        pass
    return GRACE_OF_THE_LIVING


class _Following:
    """Prints rows as they come. Looks again only where a file of the run has changed."""

    def __init__(
        self,
        run: RunLayout,
        table: str | None,
        most: int,
        columns: Sequence[str] | None,
        printer: _Printer,
    ) -> None:
        self._run, self._asked, self._most, self._columns = run, table, most, columns
        self._printer = printer
        self._table: str | None = None
        self._names: list[str] = []
        self._seen: dict[int | None, _Seen] = {}
        self._waits = False

    def run(self) -> int:
        """Follow until the run ends. Returns the exit status."""
        from cox.storage.scan import state_of
        from cox.storage.status import status_of

        before, lost = None, 0.0
        while True:
            status = status_of(self._run)  # first: what was written before the end is still to be read
            lost = (lost or time.monotonic()) if status.state in ("crashed", "unknown") else 0.0
            ended = status.state in _ENDED and time.monotonic() - lost > (_grace(status) if lost else 0.0)
            state = state_of(os.fspath(self._run.root))
            if state != before or ended:
                self._look(ended=ended)
            before = state
            if ended:
                self._say_how(status)
                return _ENDED[status.state]
            time.sleep(PAUSE)

    def _say_how(self, status: Status) -> None:
        name = self._run.root.name
        if status.state == "unknown":
            terminal.note(f"nobody says whether run {name} goes on")
        else:
            terminal.note(
                f"run {name} {status.state}" + ("" if status.error is None else f": {status.error}")
            )

    def _look(self, *, ended: bool) -> None:
        from cox.storage import snapshot

        try:
            now = snapshot.read(self._run, tables=None if self._table is None else [self._table])
        except RunNotFoundError:
            if ended or not self._run.root.is_dir():
                raise
            return  # it has only just begun
        now.warn(self._run.root.name)
        if self._table is None:
            self._table = _choose(now, self._asked, self._run)
        table = now.tables.get(self._table) if self._table is not None else None
        if table is not None:
            self._print(now, table)
        elif self._seen:  # the table is being begun anew
            if any(seen.count for seen in self._seen.values()):
                self._rewound(None, 0)
            self._seen = {writer: _Seen() for writer in self._seen}
        elif ended:
            raise TableNotFoundError(_no_table(self._asked, now, self._run))
        elif not self._waits:
            self._waits = True
            there = ", ".join(map(repr, now.tables))
            terminal.note(
                f"waiting for {'a table' if self._asked is None else f'table {self._asked!r}'}"
                + (f"; there is {there}" if there else "")
            )

    def _print(self, now: Snapshot, table: TableData) -> None:
        names = rows.names_of(table, self._columns)
        for writer, at in now.by_rank(table.name):  # between the rows of two of them there is no order
            seen = self._seen.get(writer)
            if seen is None:
                seen = self._seen[writer] = _Seen(max(0, len(at) - self._most))
            start = self._unchanged(seen, table, at, writer)
            self._printer.rows(names, rows.rows_at(table, names, at[start:]))
            seen.count = len(at)
            seen.kept = list(map(repr, rows.rows_at(table, names, at[-_REMEMBERED:])))
        self._names = names

    def _unchanged(self, seen: _Seen, table: TableData, at: Array, writer: int | None) -> int:
        """Up to which row there is what was printed. Tells if that is not all."""
        left = min(seen.count, len(at))
        same = min(seen.first_kept, left)
        if all(name in table.schema for name in self._names):
            now = map(repr, rows.rows_at(table, self._names, at[same:left]))
            for was, is_now in zip(seen.kept, now, strict=False):
                if was != is_now:
                    break
                same += 1
        else:  # the table was begun anew
            same = 0
        if same < seen.count:
            self._rewound(writer, same)
        return same

    def _rewound(self, writer: int | None, row: int) -> None:
        terminal.note(f"rewound to row {row}" + ("" if writer is None else f" by rank {writer}"))


# --- How rows are printed while they come


class _Printer:
    """Prints rows, and a header whenever the columns are others than before."""

    def __init__(self) -> None:
        self._names: list[str] | None = None

    def rows(self, names: Sequence[str], fresh: Sequence[Row]) -> None:
        """Print some rows."""
        if list(names) != self._names:
            self._names = list(names)
            self._header(names, fresh)
        for line in self._lines(fresh):
            click.echo(line, color=True)  # click must not take out of data what looks like colours

    def _header(self, names: Sequence[str], fresh: Sequence[Row]) -> None:
        for line in self._lines([tuple(names)]):
            click.echo(line, color=True)

    def _lines(self, fresh: Sequence[Row]) -> Iterator[str]:
        raise NotImplementedError


class _Csv(_Printer):
    def _lines(self, fresh: Sequence[Row]) -> Iterator[str]:
        for row in fresh:
            yield tables.csv_lines([row]).removesuffix("\n")


class _JsonLines(_Printer):
    def _header(self, names: Sequence[str], fresh: Sequence[Row]) -> None:
        pass

    def _lines(self, fresh: Sequence[Row]) -> Iterator[str]:
        for row in fresh:
            made = zip(self._names or (), map(tables.json_value, row), strict=True)
            yield json.dumps(dict(made))


class _Aligned(_Printer):
    """Columns that keep their width, or grow. Where they no longer fit, the header is printed anew."""

    _LEAST, _LONGEST = 8, 40

    def __init__(self) -> None:
        super().__init__()
        self._headings: list[str] = []
        self._widths: list[int] = []
        self._shown = 0

    def _header(self, names: Sequence[str], fresh: Sequence[Row]) -> None:
        self._headings = [printable(name) for name in names]
        self._widths = [max(width(heading), self._LEAST) for heading in self._headings]
        for row in fresh:
            self._grow(self._texts(row))
        self._print_header()

    def _print_header(self) -> None:
        room, used = self._room(), -len(_GAP)
        self._shown = 0
        for columns in self._widths:
            used += columns + len(_GAP)
            if self._shown and used > room:
                break
            self._shown += 1
        click.echo(terminal.styled(self._line(self._headings), bold=True))
        screen.name_hidden(self._headings[self._shown :])

    def _room(self) -> int:
        return terminal.size().columns if terminal.is_terminal() else 10**9

    def _lines(self, fresh: Sequence[Row]) -> Iterator[str]:
        for row in fresh:
            texts = self._texts(row)
            self._grow(texts)
            line = sum(self._widths[: self._shown]) + len(_GAP) * (self._shown - 1)
            if self._shown > 1 and line > self._room():
                self._print_header()
            yield self._line(texts)

    def _texts(self, row: Sequence[Any]) -> list[str]:
        """A row for people: long texts are cut, numbers are not."""
        return [
            "" if cell is None else cut(text(cell), self._LONGEST) if isinstance(cell, str) else text(cell)
            for cell in row
        ]

    def _grow(self, texts: Sequence[str]) -> None:
        self._widths = [max(columns, width(cell)) for columns, cell in zip(self._widths, texts, strict=True)]

    def _line(self, texts: Sequence[str]) -> str:
        pairs = zip(texts[: self._shown], self._widths, strict=False)
        line = _GAP.join(padded(text, columns, right=True) for text, columns in pairs)
        return cut(line.rstrip(), self._room())
