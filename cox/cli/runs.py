"""Which runs a command is about, and what is told of each. Loads no pandas, so that `cox ls` is quick."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox.display.text import printable
from cox.errors import RunNameError, RunNotFoundError

if TYPE_CHECKING:
    from cox.collection.status import Status
    from cox.readers import CollectionReader
    from cox.storage.layout import RunLayout

#: How many runs an error names.
_MOST_NAMED = 5
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORT = 8


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


def reader_at(path: Path, *, nested: bool = False, empty: bool = False) -> CollectionReader:
    """The runs of a folder, or the one run at a path. Runs that cannot be read are left out, with a warning.

    Args:
        path: The folder.
        nested: Whether to look deeper.
        empty: Whether a folder without runs will do.

    Raises:
        RunNotFoundError: There is no run.
    """
    from cox.collection.scan import is_run
    from cox.readers import CollectionReader

    if is_run(path):
        root = path.absolute()
        return CollectionReader(root.parent, exp_filter=root.name.__eq__, skip_errs=True)
    reader = CollectionReader(path, nested=nested, skip_errs=True)
    if not len(reader) and not empty:
        raise RunNotFoundError(f"there is no run in {path}" + ("" if nested else "; --nested looks deeper"))
    return reader


def find(text: str) -> RunLayout:
    """The run at a path, whose last part may be only the beginning of a name.

    Raises:
        RunNotFoundError: There is none; names what may have been meant.
        RunNameError: There are several; names them.
    """
    from cox.collection.scan import is_run, run_names
    from cox.storage.layout import RunLayout

    path = Path(text)
    if is_run(path):
        return RunLayout(path.absolute())
    folder, begun = path.parent, path.name
    if not folder.is_dir():
        raise RunNotFoundError(f"there is no run {text}: {folder} is no directory")
    names = run_names(os.fspath(folder))
    found = [name for name in names if begun and name.startswith(begun)]
    if len(found) == 1:
        return RunLayout((folder / found[0]).absolute())
    if found:
        raise RunNameError(f"{len(found)} runs begin with {text}: {_named(found)}")
    raise RunNotFoundError(_no_run(path, begun, names))


def _no_run(path: Path, begun: str, names: list[str]) -> str:
    if path.is_dir():
        return f"{path} is no run: name one of the runs in a folder"
    if not names:
        return f"there is no run {path}, nor any other in {path.parent}"
    close = difflib.get_close_matches(begun, names, n=3)
    hint = f"did you mean {' or '.join(map(printable, close))}?" if close else f"there are {_named(names)}"
    return f"there is no run {path}; {hint}"


def shortening(known: Iterable[str]) -> Callable[[Any], str]:
    """What shows UUIDs by their first 8 characters, where no other run's name begins so.

    Args:
        known: The names of all runs.
    """
    begun = Counter(name[:_SHORT] for name in known)

    def shown(name: Any) -> str:
        text = printable(name)
        return text[:_SHORT] if _UUID.fullmatch(text) and begun[text[:_SHORT]] == 1 else text

    return shown


def _named(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(printable, names[:_MOST_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def newest(reader: CollectionReader) -> list[str]:
    """All runs, first those that began or ended last: by the time of their `run.json`, one look each."""
    times = {name: _changed(os.fspath(layout_of(reader, name).root)) for name in reader.exp_ids}
    return sorted(times, key=lambda name: -times[name])


def _changed(root: str) -> float:
    for path in (f"{root}/.cox/run.json", root):
        try:
            return os.stat(path).st_mtime  # noqa: PTH116 - a Path costs as much again
        except OSError:
            continue
    return 0.0


def layout_of(reader: CollectionReader, name: str) -> RunLayout:
    """Where a run of a reader lies."""
    return reader.source.layout(name)


def parameters(reader: CollectionReader, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The parameters of runs, without those that cannot be read."""
    return {name: dict(values) for name, values in reader.source.parameters(names).items()}


def statuses(reader: CollectionReader, names: Iterable[str]) -> dict[str, Status]:
    """How runs are, without those that cannot be read."""
    from cox.collection.status import status_of

    found = {name: reader.source.guarded(name, partial(status_of, layout_of(reader, name))) for name in names}
    return {name: status for name, status in found.items() if status is not None}


def described(reader: CollectionReader, names: Iterable[str], *, rows: bool = True) -> list[Run]:
    """What is told of runs, in their order, without those that cannot be read.

    Args:
        reader: The folder.
        names: The runs.
        rows: Whether to read the last row of each table.
    """
    from cox.collection.overview import lasts

    found = parameters(reader, names)
    made = {
        name: Run(name, layout_of(reader, name).root, status, found[name])
        for name, status in statuses(reader, found).items()
    }
    for table in reader.source.tables_of(made) if rows and made else ():
        rows_of = reader.source.read(made, table)
        for name, last in lasts(rows_of.blocks, made, rows_of.ranked).items():
            if last:
                made[name].last[table] = {column: cell for column, cell in last.items() if cell is not None}
    return list(made.values())
