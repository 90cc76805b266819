"""A Parquet dataset for each table, brought up to date: runs that are in it unchanged are not read again.

`DEST/results/` holds `part-<uuid>.parquet`, each with the rows of some runs, and `_cox.json`, which says in
which state these runs were; names that begin with `_` or `.` are no data for pyarrow, DuckDB or Spark. A
step that changes several files is first written down there, and finished by the next one if it is cut off.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox.collection.exports import needed, to_arrow
from cox.collection.scan import State
from cox.errors import ExportError
from cox.storage import fs

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "_cox.json"
_VERSION = 1
#: So many runs go into one file.
RUNS_IN_PART = 250


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

    Raises:
        ExportError: There is something else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arrow = needed("pyarrow", "parquet")
        self._parquet = needed("pyarrow.parquet", "parquet")
        self._manifest = self._load()

    def update(
        self, states: Mapping[str, State], empty: pd.DataFrame, read: Callable[[list[str]], pd.DataFrame]
    ) -> int:
        """Bring the dataset up to date.

        Args:
            states: The runs that are to be in it, in order, and the state of each before it is read. Runs
                that it has beside these stay.
            empty: The rows of no run, with the columns and their types.
            read: Reads the rows of some runs, with a column `exp_id`.

        Returns:
            How many runs were read.
        """
        schema = to_arrow(empty).schema
        columns = [[column.name, str(column.type)] for column in schema]
        known = {name: state for part in self._manifest.parts.values() for name, state in part.items()}
        changed = [name for name, state in states.items() if known.get(name) != _plain(state)]
        if not changed and columns == self._manifest.columns:
            return 0
        self._folder.mkdir(parents=True, exist_ok=True)
        made: dict[str, dict[str, Any]] = {}
        gone = []
        for part, runs in self._manifest.parts.items():
            if columns != self._manifest.columns or not runs.keys().isdisjoint(changed):
                gone.append(part)
                left = [name for name in runs if name not in states or known[name] == _plain(states[name])]
                if left:
                    made[self._write(self._left(part, left, schema))] = {name: runs[name] for name in left}
        for names in _grouped(changed):
            made[self._write(to_arrow(read(names)).cast(schema))] = {
                name: _plain(states[name]) for name in names
            }
        kept = {part: runs for part, runs in self._manifest.parts.items() if part not in gone}
        self._manifest = _Manifest(columns, kept | made)
        self._save(gone)
        self._finish(gone)
        return len(changed)

    def _left(self, part: str, names: Sequence[str], schema: Any) -> Any:
        """The rows of a file that are still right, in the columns that are wanted now."""
        table = self._parquet.read_table(self._folder / part)
        wanted = self._arrow.array(names, type=table.schema.field("exp_id").type)
        table = table.filter(self._arrow.compute.is_in(table["exp_id"], value_set=wanted))
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

    def _save(self, gone: Sequence[str]) -> None:
        content = {
            "version": _VERSION,
            "columns": self._manifest.columns,
            "parts": self._manifest.parts,
            "gone": gone,
        }
        fs.replace_bytes(self._folder / MANIFEST, json.dumps(content).encode())

    def _finish(self, gone: Sequence[str]) -> None:
        """Do what is written down: never are the rows of a run there twice."""
        for part in gone:
            fs.unlink(self._folder / part)
        for part in self._manifest.parts:
            hidden = self._folder / f".{part}"
            if hidden.exists():
                fs.rename(hidden, self._folder / part)
        for path in self._folder.glob(".part-*.parquet"):  # of an export that did not come so far
            fs.unlink(path)

    def _load(self) -> _Manifest:
        path = self._folder / MANIFEST
        if not path.exists():
            if self._folder.is_dir() and any(
                not name.name.startswith(".part-") for name in self._folder.iterdir()
            ):
                raise ExportError(
                    f"{self._folder} has files that no export made: choose an empty or a new directory"
                )
            return _Manifest()
        try:
            content = _content(path)
            self._manifest = _Manifest(content["columns"], content["parts"])
            self._finish(content["gone"])
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


def _grouped(names: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), RUNS_IN_PART):
        yield list(names[start : start + RUNS_IN_PART])


def _plain(state: State) -> Any:
    """A state as JSON gives it back."""
    return json.loads(json.dumps(state))
