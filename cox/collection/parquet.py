"""A Parquet dataset for each table, brought up to date: runs that are in it unchanged are not read again.

`DEST/results/` holds `part-<uuid>.parquet`, each with the rows of some runs, and `_cox.json`, which says in
which state these runs were; names that begin with `_` or `.` are no data for pyarrow, DuckDB or Spark. A
step that changes several files is first written down there, and finished by the next one if it is cut off.
Who does so holds the lock `.lock` meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox.collection.exports import to_arrow
from cox.collection.scan import State
from cox.errors import ExportError
from cox.extras import needed
from cox.storage import claims, fs, layout

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "_cox.json"
_VERSION = 1
#: So many runs go into one file.
RUNS_IN_PART = 250
#: How long to wait for another export to the same place, in seconds.
PATIENCE = claims.PATIENCE

_LOCK = ".lock"
_PART = re.compile(r"part-[0-9a-f]{32}\.parquet")
#: How names begin that say nothing of who made the directory: of an export that did not come far.
_PASSING = (".part-", _LOCK, layout.TEMPORARY_PREFIX)


@dataclass(slots=True)
class _Manifest:
    """What is in a dataset.

    Attributes:
        columns: Names and types of the columns, as text.
        parts: For each file its runs, and the state in which each was read.
    """

    columns: list[list[str]] = field(default_factory=list)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)


class Dataset:
    """The dataset of one table.

    Args:
        folder: Where its files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrow = needed("pyarrow", "parquet")
        self._parquet = needed("pyarrow.parquet", "parquet")
        self._manifest = _Manifest()

    def update(
        self,
        states: Mapping[str, State],
        without: Collection[str],
        empty: pd.DataFrame,
        read: Callable[[list[str]], pd.DataFrame],
    ) -> int:
        """Bring the dataset up to date.

        Args:
            states: The runs that are to be in it, in order, and the state of each before it is read. Runs
                that it has beside these stay.
            without: The runs that do not have the table, so that their rows do not stay.
            empty: The rows of no run, with the columns and their types.
            read: Reads the rows of some runs, with a column `exp_id`.

        Returns:
            How many runs were read.

        Raises:
            ExportError: There is something else; or another process exports there; or what is there does
                not fit.
        """
        self._refuse_foreign()
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(claims.exclusive(self._folder / _LOCK, patience=PATIENCE))
            except BlockingIOError as error:
                raise ExportError(f"another process exports to {self._folder}: wait for it") from error
            self._manifest = self._load()
            try:
                return self._update(states, frozenset(without), empty, read)
            except self._arrow.ArrowException as error:
                raise ExportError(
                    f"what is in {self._folder} does not fit the runs anymore ({error}): "
                    "export to a new directory"
                ) from error

    def _update(
        self,
        states: Mapping[str, State],
        without: frozenset[str],
        empty: pd.DataFrame,
        read: Callable[[list[str]], pd.DataFrame],
    ) -> int:
        before = self._manifest
        schema = self._schema(empty)
        columns = [[column.name, str(column.type)] for column in schema]
        known = {name: state for part in before.parts.values() for name, state in part.items()}
        # Arrow writes True and 1.0 otherwise than the runs' reader does: the rows are not cast, but read anew
        anew = _retyped(before.columns, columns)
        changed = [name for name, state in states.items() if anew or known.get(name) != _plain(state)]
        stale = {*changed, *without}
        if columns == before.columns and not changed and without.isdisjoint(known):
            return 0
        made: dict[str, dict[str, Any]] = {}
        kept = {}
        for part, runs in before.parts.items():
            if columns == before.columns and stale.isdisjoint(runs):
                kept[part] = runs
            elif left := {name: state for name, state in runs.items() if name not in stale}:
                made[self._write(self._left(part, list(left), schema))] = left
        for names in _grouped(changed):
            made[self._write(self._conformed(to_arrow(read(names)), schema))] = {
                name: _plain(states[name]) for name in names
            }
        self._manifest = _Manifest(columns, kept | made)
        self._save()
        self._finish()
        return len(changed)

    def _schema(self, empty: pd.DataFrame) -> Any:
        schema = to_arrow(empty).schema
        for at, column in enumerate(schema):
            if self._arrow.types.is_null(column.type):  # text, of a pandas that keeps it as objects
                schema = schema.set(at, column.with_type(self._arrow.string()))
        return schema

    def _left(self, part: str, names: Sequence[str], schema: Any) -> Any:
        """The rows of a file that are still right, in the columns that are wanted now."""
        table = self._parquet.read_table(self._folder / part)
        wanted = self._arrow.array(names, type=table.schema.field("exp_id").type)
        table = table.filter(self._arrow.compute.is_in(table["exp_id"], value_set=wanted))
        return self._conformed(table, schema)

    def _conformed(self, table: Any, schema: Any) -> Any:
        """A table in the columns of a schema, nulls for those that it lacks."""
        columns = [
            table[column.name]
            if column.name in table.column_names
            else self._arrow.nulls(len(table), column.type)
            for column in schema
        ]
        return self._arrow.table(columns, names=schema.names).cast(schema)

    def _write(self, table: Any) -> str:
        """Write a file under a name that is not read yet. Returns the one that it will have."""
        name = f"part-{uuid.uuid4().hex}.parquet"
        self._parquet.write_table(table, self._folder / f".{name}", compression="zstd")
        return name

    def _save(self) -> None:
        content = {
            "version": _VERSION,
            "columns": self._manifest.columns,
            "parts": self._manifest.parts,
        }
        fs.replace_bytes(self._folder / MANIFEST, json.dumps(content).encode())

    def _finish(self) -> None:
        """Do what is written down: never are the rows of a run there twice."""
        for path in self._folder.glob("part-*.parquet"):
            if path.name not in self._manifest.parts and _PART.fullmatch(path.name):
                fs.unlink(path)
        for part in self._manifest.parts:
            hidden = self._folder / f".{part}"
            if hidden.exists():
                fs.rename(hidden, self._folder / part)
        for path in self._folder.glob(".part-*.parquet"):  # of an export that did not come so far
            fs.unlink(path)

    def _refuse_foreign(self) -> None:
        """Raise if there are files, but no dataset."""
        if not self._folder.is_dir() or (self._folder / MANIFEST).exists():
            return
        names = [path.name for path in self._folder.iterdir() if not path.name.startswith(_PASSING)]
        if names and MANIFEST not in names:  # as it is if another export made it just now
            raise ExportError(
                f"{self._folder} has files that no export made: choose an empty or a new directory"
            )

    def _load(self) -> _Manifest:
        path = self._folder / MANIFEST
        if not path.exists():
            self._refuse_foreign()
            return _Manifest()
        try:
            content = _content(path)
            self._manifest = _Manifest(content["columns"], content["parts"])
            self._finish()
        except (ValueError, LookupError, TypeError) as error:
            raise ExportError(
                f"{path} cannot be read ({error}): delete {self._folder} and export anew"
            ) from error
        there = {name: runs for name, runs in self._manifest.parts.items() if (self._folder / name).exists()}
        return _Manifest(self._manifest.columns, there)


def _content(path: Path) -> Any:
    content = json.loads(path.read_bytes())
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']}")
    return content


def _retyped(before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> bool:
    """Whether a column has another type than before."""
    types = {column[0]: column[1] for column in before}
    return any(types.get(name, kind) != kind for name, kind in after)


def _grouped(names: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), RUNS_IN_PART):
        yield list(names[start : start + RUNS_IN_PART])


def _plain(state: State) -> Any:
    """A state as JSON gives it back."""
    return json.loads(json.dumps(state))
