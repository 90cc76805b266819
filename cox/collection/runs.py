"""The runs of one folder or of several: which there are, where they lie, and what becomes of bad ones.

Loads neither numpy nor pandas before something is read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from cox.collection.naming import readable
from cox.errors import (
    CollectionWarning,
    CoxError,
    RunNotFoundError,
    TableNotFoundError,
    unknown,
    warn,
)
from cox.metadata import METADATA, decoded
from cox.objects.trust import Trust
from cox.schema import Column, Schema, cell_value, describe_difference
from cox.storage import layout, scan
from cox.storage.schemas import merge_schemas

if TYPE_CHECKING:
    from cox.collection.dataset import Archive
    from cox.collection.query import ExpFilter
    from cox.storage.status import Status

_log = logging.getLogger("cox")

#: What a run says of where it was made.
_ENVIRONMENT = ("host", "platform", "python", "cox", "command")

Directory = Union[str, "os.PathLike[str]"]


class Runs:
    """The runs that are there when this is made. For the arguments see `CollectionReader`.

    Attributes:
        directory: Where they are, as it was given.
        folders: The same as absolute paths.
        nested: Whether they may lie deeper.
        metadata: The table whose first row holds their parameters.
        cache: Whether to keep what is read beside them; None for where it pays.
        names: Their names, sorted within each folder.

    Raises:
        FileNotFoundError: A folder is not there.
    """

    def __init__(
        self,
        directory: Directory | Iterable[Directory],
        exp_filter: ExpFilter | None = None,
        *,
        nested: bool = False,
        metadata: str = METADATA,
        skip: bool = False,
        log_warnings: bool = True,
        allow_pickle: bool = False,
        cache: bool | None = None,
    ) -> None:
        self.directory = directory
        self.folders = _absolute(directory)
        self.nested = nested
        self.metadata = metadata
        self._skip = skip
        self._log_warnings = log_warnings
        self.allow_pickle = allow_pickle
        self.cache = cache
        #: For each run its folder, and its path in there.
        self._places: dict[str, tuple[str, str]] = {}
        taken: set[str] = set()
        self._archives: dict[str, Archive] = {}
        for folder in self.folders:
            for key in self._names_in(folder):
                name = _distinct(key, folder, taken)
                taken.add(name)
                if exp_filter is None or exp_filter(name):
                    self._places[name] = folder, key
        self.names = list(self._places)

    def __len__(self) -> int:
        return len(self.names)

    def _names_in(self, folder: str) -> list[str]:
        """The runs of a folder; of one without runs that is a dataset of `to_parquet`, those in there."""
        names = scan.run_names(folder, nested=self.nested)
        if not names and os.path.isdir(f"{folder}/_cox"):  # noqa: PTH112 - never raises
            from cox.collection.dataset import Archive

            archive = Archive.at(folder)
            if archive is not None:
                self._archives[folder] = archive
                return archive.names
        return names

    def archive(self, name: str) -> Archive | None:
        """The dataset that a run is in; None for one in a directory of its own."""
        return self._archives.get(self._places[name][0]) if name in self._places else None

    def archive_in(self, folder: str) -> Archive | None:
        """The dataset that a folder is; None for a folder of runs."""
        return self._archives.get(folder)

    def layout(self, name: str) -> layout.RunLayout:
        """Where a run is.

        Raises:
            RunNotFoundError: There is no run of that name.
        """
        if name not in self._places:
            where = f" among {len(self)} in {self.directory}"
            raise RunNotFoundError(unknown("there is no run", name, self.names, where))
        folder, key = self._places[name]
        archive = self._archives.get(folder)
        return layout.RunLayout(Path(folder, key)) if archive is None else archive.layout(key)

    def place(self, name: str) -> tuple[str, str]:
        """The folder of a run, and its path in there."""
        return self._places[name]

    def status(self, name: str) -> Status:
        """How a run is.

        Raises:
            FormatVersionError: A newer cox wrote it.
        """
        from cox.storage.status import status_of

        archive = self.archive(name)
        return status_of(self.layout(name)) if archive is None else archive.status(self._places[name][1])

    def environment(self, name: str) -> dict[str, Any]:
        """Where a run was made."""
        from cox.storage import runinfo

        archive = self.archive(name)
        if archive is not None:
            return {key: archive.entry(self._places[name][1]).environment.get(key) for key in _ENVIRONMENT}
        info = runinfo.read(self.layout(name))
        return {key: info.get(key) for key in _ENVIRONMENT}

    def resolve(self, name: str) -> str:
        """Return the name of the run that is meant by it, or by a beginning that no other run has.

        Raises:
            RunNotFoundError: There is none; names what may have been meant.
            RunNameError: There are several; names them.
        """
        from cox.collection.naming import resolve

        return resolve(name, self.names, f"{name!r} in {self.directory}")

    def guarded(self, name: str, read: Callable[[], Any], *, skip: bool = False) -> Any:
        """What `read` returns, or None if the run cannot be read and is to be left out."""
        try:
            return read()
        except (OSError, CoxError) as error:
            gone = isinstance(error, FileNotFoundError) and not self.layout(name).root.is_dir()
            if not (skip or self._skip or gone):
                _log.error("run %s cannot be read; skip_errs=True leaves such runs out", name)
                raise
            warn(f"run {name} is left out: {error}", CollectionWarning)
            return None

    def warn(self, sentence: str) -> None:
        """Say something that the caller may have asked not to be told."""
        if self._log_warnings:
            warn(sentence, CollectionWarning)

    def decoder(self, table: str) -> Callable[[str, Column, Any], Any]:
        """What decodes a table's cells, each by its run's own schema and as far as its run is trusted."""
        trusts: dict[str, Trust] = {}

        def decode(name: str, column: Column, cell: Any) -> Any:
            if not column.traits.is_object:
                return cell_value(column, cell)
            run = self.layout(name)
            if name not in trusts:
                archive = self.archive(name)
                run_id = None if archive is None else archive.entry(self._places[name][1]).id
                trusts[name] = Trust(run, allow_pickle=self.allow_pickle, run_id=run_id)
            return decoded(column, cell, run, trusts[name], table)

        return decode

    # --- Tables

    def common_schema(self, table: str, schemas: Mapping[str, Schema], *, quiet: bool = False) -> Schema:
        """The columns of a table in some runs; where they differ, all columns and the wider types.

        Args:
            table: The table.
            schemas: Its columns by run, of one run at least.
            quiet: Whether not to warn of those that differ from the first.
        """
        first = made = next(iter(schemas.values()))
        for name, schema in schemas.items():
            if schema is first or schema == first:
                continue
            if not quiet:
                difference = describe_difference(first, schema) or "has its columns in another order"
                self.warn(f"run {name} has table {table!r} with another schema: it {difference}")
            made = merge_schemas(made, schema)
        return made

    def refuse_unknown_table(self, table: str, known: Iterable[str]) -> None:
        """Raise if a table is none of those that are known.

        Raises:
            TableNotFoundError: Says which there are.
        """
        seen = list(known)
        if table in seen:
            return
        if not seen:
            raise TableNotFoundError(
                f"no table {table!r}: none of the {len(self)} runs in {self.directory} has a table"
            )
        raise TableNotFoundError(unknown(f"no run in {self.directory} has a table", table, sorted(seen)))


def _distinct(key: str, folder: str, taken: Container[str]) -> str:
    """A name for a run: its path in its folder, with as many parents before it as tell it from the others."""
    name, parent = readable(key), folder
    while name in taken:
        parent, last = os.path.split(parent)
        name = f"{readable(last)}/{name}" if last else f"/{name}"
    return name


def _absolute(directory: Any) -> list[str]:
    listed = [directory] if isinstance(directory, (str, os.PathLike)) else list(directory)
    # links are kept as they are; a folder that is given twice counts once
    folders = list(dict.fromkeys(os.fspath(layout.absolute(folder)) for folder in listed))
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is no directory of runs")
    return folders
