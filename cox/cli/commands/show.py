"""`cox show`: all there is to know about a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cox.cli import options, screen, tables, terminal
from cox.cli.runs import find
from cox.collection.listing import COLOURS, Run, as_document
from cox.collection.naming import readable
from cox.display import times
from cox.display.grid import Column, Grid
from cox.display.text import printable, text
from cox.storage import rows
from cox.storage.layout import METADATA_TABLE

if TYPE_CHECKING:
    from cox.storage.columns import TableData
    from cox.storage.layout import RunLayout
    from cox.storage.sessions import History, Session

#: Last rows of a table, and files of a directory, that are shown.
_LAST_ROWS = 3
_MOST_FILES = 10
#: Sessions that are shown, the last ones.
_MOST_SESSIONS = 10


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    size: int


@click.command()
@options.run
@options.as_json
def show(run: str, as_json: bool) -> None:
    """Show all there is to know about the run at RUN: how it is, its parameters, its tables, its files.

    RUN is the path of a run; the beginning of its name is enough.

    \b
    Examples:
      cox show runs/3f2a
      cox show runs/3f2a9c41-… --json
    """  # noqa: D301
    from cox.storage import snapshot

    layout = find(run)
    now = snapshot.read(layout)
    now.warn(layout.root.name)
    found = _described(layout, now.tables)
    if as_json:
        click.echo(tables.as_json(_document(layout, found, now.tables)), nl=False)
        return
    _heading(found.name)
    _facts(found)
    _sessions(found.status.history)
    _parameters(found.params)
    for table in now.tables.values():
        _table(table)
    for directory in (layout.save_dir, layout.tensorboard_dir):
        _files(directory)


def _described(run: RunLayout, found: dict[str, TableData]) -> Run:
    from cox.cli.runs import reader_at
    from cox.collection.moment import Moment
    from cox.storage.status import status_of

    reader = reader_at(run.root)
    params = dict(Moment(reader.source).parameters(reader.exp_ids).get(readable(run.root.name), {}))
    last = {
        name: dict(zip(table.schema.names(), row, strict=True))
        for name, table in found.items()
        for row in rows.last(table, table.schema.names(), 1)
        if name != METADATA_TABLE
    }
    return Run(run.root.name, run.root, status_of(run), params, last)


def _document(run: RunLayout, found: Run, tables_of: dict[str, TableData]) -> dict[str, Any]:
    document = as_document(found)
    document["not_stored"] = found.status.not_stored
    document["sessions"] = [_session(one) for one in found.status.history.sessions]
    document["tables"] = {
        name: {"rows": table.nrows, "columns": _types(table)} for name, table in tables_of.items()
    }
    for directory in (run.save_dir, run.tensorboard_dir):
        document[directory.name] = [{"name": file.name, "bytes": file.size} for file in _files_in(directory)]
    return document


def _session(one: Session) -> dict[str, Any]:
    """A session for JSON."""
    from cox.storage import layout

    return {
        "started": times.moment(one.started),
        "ended": times.moment(one.ended),
        "how": one.how,
        "rank": None if one.writer is None else layout.rank_of(one.writer),
        "error": one.error,
        "not_stored": one.not_stored,
        "host": one.host,
        "pid": one.pid,
        "python": one.python,
        "cox": one.cox,
        "command": list(one.command),
    }


def _types(table: TableData) -> dict[str, str]:
    from cox.schema import type_name

    return {column.name: type_name(column.type) for column in table.schema}


# --- For people


def _heading(text: str) -> None:
    click.echo(terminal.styled(printable(text), bold=True))


def _facts(run: Run) -> None:
    status = run.status
    started = times.moment(status.started)
    facts: dict[str, str | None] = {
        "state": terminal.styled(status.state, colour=_colour(status.state)),
        "error": None if status.error is None else printable(status.error),
        "started": None if started is None else f"{text(started.astimezone())} ({times.ago(started)})",
        "duration": None if status.duration is None else times.lasting(status.duration),
        "host": _host(run),
        "not stored": f"{status.not_stored} rows, which the file system refused"
        if status.not_stored
        else None,
        "path": printable(run.root),
    }
    for name, value in facts.items():
        if value is not None:
            click.echo(f"  {name:<10}  {value}")


def _sessions(history: History) -> None:
    """The processes that wrote the run, where there was more than one."""
    if history.count < 2:
        return
    click.echo()
    _heading(f"{history.count:,} sessions")
    last = [_session(one) for one in history.sessions[-_MOST_SESSIONS:]]
    names = ["started", "ended", "how"]
    names += [name for name in ("rank", "host", "error") if len({one[name] for one in last}) > 1]
    hidden = history.count - len(last)
    if hidden:
        click.echo(f"  {hidden:,} earlier ones …")
    _grid(Grid([Column(name, [one[name] for one in last]) for name in names]))


def _colour(state: str) -> str | None:
    return None if COLOURS[state] == "dim" else COLOURS[state]


def _host(run: Run) -> str | None:
    host, pid = run.status.host, run.status.pid
    if host is None:
        return None
    return printable(host) + ("" if pid is None else f", process {pid}")


def _parameters(params: dict[str, Any]) -> None:
    if not params:
        return
    click.echo()
    _heading("parameters")
    names = [printable(name) for name in params]
    width = max(map(len, names))
    for name, value in zip(names, params.values(), strict=True):
        click.echo(f"  {name:<{width}}  {'' if value is None else text(value)}")


def _table(table: TableData) -> None:
    click.echo()
    count = f"{table.nrows:,} row{'' if table.nrows == 1 else 's'}"
    _heading(f"table {table.name}, {count}")
    types = ", ".join(f"{printable(name)}: {kind}" for name, kind in _types(table).items())
    for line in _wrapped(types):
        click.echo(f"  {line}")
    if table.name == METADATA_TABLE or not table.nrows:
        return
    click.echo()
    names = table.schema.names()
    _grid(tables.grid_of(names, rows.last(table, names, _LAST_ROWS)))


def _grid(grid: Grid) -> None:
    if terminal.is_terminal():
        screen.show(grid, whole=True, indent=2)
    else:
        click.echo("".join(f"  {line}\n" for line in tables.plain_lines(grid)), nl=False)


def _wrapped(text: str) -> Sequence[str]:
    import textwrap

    return textwrap.wrap(text, max(20, terminal.size().columns - 2), break_on_hyphens=False)


def _files(directory: Path) -> None:
    found = list(_files_in(directory))
    if not found:
        return
    click.echo()
    size = times.as_bytes(sum(file.size for file in found))
    _heading(f"{directory.name}/, {len(found)} file{'' if len(found) == 1 else 's'}, {size}")
    shown = found[:_MOST_FILES]
    width = max(len(printable(file.name)) for file in shown)
    for file in shown:
        click.echo(f"  {printable(file.name):<{width}}  {times.as_bytes(file.size):>8}")
    if len(found) > len(shown):
        click.echo(f"  … and {len(found) - len(shown):,} more")


def _files_in(directory: Path) -> Iterator[_File]:
    for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
        try:
            if path.is_file():
                yield _File(str(path.relative_to(directory)), path.stat().st_size)
        except OSError:  # it was removed meanwhile
            continue
