"""`cox tail`: the last rows of a run, and those that come."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cox.cli import completion, options, screen, tables, terminal
from cox.cli.runs import find
from cox.collection.naming import shown_as, some
from cox.display.text import cut, padded, printable, text, width
from cox.errors import TableNotFoundError, unknown
from cox.storage import rows
from cox.storage.layout import METADATA_TABLE
from cox.storage.rows import Row

if TYPE_CHECKING:
    from cox.storage.following import Event
    from cox.storage.layout import RunLayout
    from cox.storage.snapshot import Snapshot
    from cox.storage.status import Status

#: Seconds between two looks at a run.
PAUSE = 0.5
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
        raise SystemExit(_follow(layout, table, most, columns, printer))
    from cox.storage import snapshot

    now = snapshot.read(layout)
    now.warn(layout.root.name)
    name = _choose(now, table, layout)
    if name is None:
        raise TableNotFoundError(_no_table(table, now, layout))
    chosen = now.tables[name]
    names = rows.names_of(chosen, columns)
    grid = tables.grid_of(names, rows.last(chosen, names, most))
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


def _follow(
    run: RunLayout, table: str | None, most: int, columns: Sequence[str] | None, printer: _Printer
) -> int:
    """Print rows as they come, until the run ends. Returns the exit status."""
    from cox.storage.following import Ended, Follower

    follower = Follower(run, lambda now: _choose(now, table, run), most=most, columns=columns)
    for event in follower.events(PAUSE):
        if not isinstance(event, Ended):
            _print(event, table, printer)
            continue
        if event.lacking is not None:
            raise TableNotFoundError(_no_table(table, event.lacking, run))
        _say_how(run.root.name, event.status)
        return _ENDED[event.status.state]
    raise AssertionError("a follower says when a run ended")


def _print(event: Event, asked: str | None, printer: _Printer) -> None:
    from cox.storage.following import NewRows, Rewound, Waiting

    match event:
        case NewRows():
            printer.rows(event.names, event.rows)
        case Rewound(rank, row):
            terminal.note(f"rewound to row {row}" + ("" if rank is None else f" by rank {rank}"))
        case Waiting(tables):
            there = ", ".join(map(repr, tables))
            terminal.note(
                f"waiting for {'a table' if asked is None else f'table {asked!r}'}"
                + (f"; there is {there}" if there else "")
            )


def _say_how(name: str, status: Status) -> None:
    if status.state == "unknown":
        terminal.note(f"nobody says whether run {name} goes on")
    else:
        terminal.note(f"run {name} {status.state}" + ("" if status.error is None else f": {status.error}"))


# --- How rows are printed while they come


class _Printer(ABC):
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

    @abstractmethod
    def _lines(self, fresh: Sequence[Row]) -> Iterator[str]:
        """Rows as they are printed."""


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
