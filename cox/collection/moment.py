"""The runs as of now: what one call of a reader sees of them, however often it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox.collection.query import Query
from cox.collection.reading import Folder, Rows
from cox.errors import PredicateError, argument
from cox.metadata import RunParameters
from cox.schema import Schema

if TYPE_CHECKING:
    from cox.collection.dataset import Archive
    from cox.collection.runs import Runs
    from cox.storage.scan import State
    from cox.storage.status import Status


class Moment:
    """The runs at one moment, which for each is when it is looked at first.

    Made anew for each call of a reader's method, and for each command. All that the call reads goes through
    this: the index of the cache is loaded once, the state of each run is asked once, and rows that are
    written meanwhile are not seen. It keeps what each run has and its parameters, but no rows of tables.

    Args:
        runs: The runs.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._folders: dict[str, Folder | Archive] = {}
        self._decode = runs.decoder(runs.metadata)
        #: None for a run that was left out.
        self._parameters: dict[str, RunParameters | None] = {}
        self._statuses: dict[str, Status | None] = {}

    def read(
        self,
        names: Iterable[str],
        table: str | None = None,
        *,
        columns: frozenset[str] | None = None,
        skip: bool = False,
    ) -> Rows:
        """Read what runs have, and the rows of one table.

        Args:
            names: The runs.
            table: The table, if any.
            columns: The columns that are wanted; None for all.
            skip: Whether to leave out runs that cannot be read.
        """
        by_folder: dict[str, dict[str, str]] = {}
        for name in names:
            folder, key = self.runs.place(name)
            by_folder.setdefault(folder, {})[key] = name
        rows = Rows()
        for folder, shown in by_folder.items():
            guard = partial(self._guarded_in, shown, skip=skip)
            found = self._folder(folder).read(list(shown), guard, table=table, columns=columns)
            for block in found.blocks:
                block.names = [shown[key] for key in block.names]
            rows.blocks += found.blocks
            rows.ranked.update(shown[key] for key in found.ranked)
            rows.schemas.update((shown[key], schemas) for key, schemas in found.schemas.items())
        return rows

    def _folder(self, folder: str) -> Folder | Archive:
        if folder not in self._folders:
            self._folders[folder] = self.runs.archive_in(folder) or Folder(
                Path(folder), cache=self.runs.cache
            )
        return self._folders[folder]

    def _guarded_in(self, shown: Mapping[str, str], key: str, read: Callable[[], Any], *, skip: bool) -> Any:
        return self.runs.guarded(shown[key], read, skip=skip)

    # --- Runs

    def state(self, name: str) -> State:
        """The state of the files of a run in a directory of its own.

        Raises:
            OSError: The file system refused to look.
            ValueError: The run is in a dataset.
        """
        folder, key = self.runs.place(name)
        reader = self._folder(folder)
        if not isinstance(reader, Folder):
            raise ValueError(f"run {name} is in a dataset, which keeps no state of it")  # noqa: TRY004
        return reader.state(key)

    def statuses(self, names: Iterable[str], *, skip: bool = False) -> dict[str, Status]:
        """How runs are, of those that can be read.

        To be asked before anything else is read: a run that is told to have ended then has all its rows.
        """
        statuses = {}
        for name in names:
            if name not in self._statuses:
                self._statuses[name] = self.runs.guarded(name, partial(self.runs.status, name), skip=skip)
            status = self._statuses[name]
            if status is not None:
                statuses[name] = status
        return statuses

    def parameters(self, names: Iterable[str], *, skip: bool = False) -> dict[str, RunParameters]:
        """The parameters of each run, as far as it can be read; none for a run without."""
        names = list(names)
        new = [name for name in names if name not in self._parameters]
        if new:
            self._parameters.update(dict.fromkeys(new))
            self.keep_parameters(self.read(new, self.runs.metadata, skip=skip))
        parameters = ((name, self._parameters[name]) for name in names)
        return {name: own for name, own in parameters if own is not None}

    def keep_parameters(self, metadata: Rows) -> None:
        """Keep the parameters of runs whose metadata was read, with all its columns."""
        from cox.collection import overview

        self._parameters |= overview.parameters(
            metadata.blocks, metadata.schemas, self._decode, metadata.ranked, self.runs.layout
        )

    def named(self, query: Query) -> list[str]:
        """The runs whose names pass."""
        return [name for name in self.runs.names if query.exp_filter is None or query.exp_filter(name)]

    def selected(self, query: Query) -> list[str]:
        """The runs whose names and parameters pass."""
        names = self.named(query)
        if query.params is None:
            return names
        from cox.collection import overview

        return overview.filtered(self.parameters(names, skip=query.skip), query.params, self.runs.metadata)

    def some_selected(self, query: Query) -> list[str]:
        """The same, where there must be some.

        Raises:
            PredicateError: None of the runs passes. Says what was asked for, and which values there are.
        """
        names = self.selected(query)
        if names or not self.runs.names:
            return names
        asked = [argument("params", query.params)] if query.params is not None else []
        asked += ["exp_filter"] if query.exp_filter is not None else []
        told = f"none of {len(self.runs)} runs passes {' and '.join(asked)}"
        if query.params is not None and not callable(query.params):
            from cox.collection import overview

            told += overview.values_there(self.parameters(self.runs.names), query.params)
        raise PredicateError(told)

    # --- Tables

    def tables_of(self, names: Iterable[str]) -> list[str]:
        """The tables that any of the runs has, but the metadata."""
        return [table for table in by_table(self.read(names).schemas) if table != self.runs.metadata]

    def schemas(self, *, quiet: bool = False) -> dict[str, Schema]:
        """The columns of each table in all runs."""
        tables = by_table(self.read(self.runs.names).schemas)
        return {
            table: self.runs.common_schema(table, schemas, quiet=quiet) for table, schemas in tables.items()
        }

    def lasts(self, names: Iterable[str], table: str, *, skip: bool = False) -> dict[str, dict[str, Any]]:
        """The last row of a table of each run; empty for a run without."""
        from cox.collection import overview

        names = list(names)
        rows = self.read(names, table, skip=skip)
        return overview.lasts(rows.blocks, names, rows.ranked)


def by_table(schemas: Mapping[str, Mapping[str, Schema]]) -> dict[str, dict[str, Schema]]:
    """The columns of each table by run, from the tables of each run."""
    found: dict[str, dict[str, Schema]] = {}
    for name, tables in schemas.items():
        for table, schema in tables.items():
            found.setdefault(table, {})[name] = schema
    return found
