"""Which run of a dataset is which run of a reader: one is known by its id and its place, not by its name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cox.collection import dataset
from cox.collection.blocks import Block
from cox.collection.dataset import Entry, Manifest
from cox.collection.outgoing import Outgoing
from cox.errors import CoxError, ExportError
from cox.schema import Schema
from cox.storage import layout, runinfo, scan
from cox.storage.columns import mask_of, values_of
from cox.storage.scan import State

if TYPE_CHECKING:
    from cox.collection.moment import Moment
    from cox.collection.reading import Rows
    from cox.collection.runs import Runs

#: How the keys of runs begin that the version before entered, by nothing but their names.
OLD = "old-"


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is to be exported.

    Attributes:
        name: What its reader calls it.
        place: Its folder, and its path in there.
        state: The state that it is in.
        entry: Reads what is kept of it beside its rows; its name does not count.
    """

    name: str
    place: list[str]
    state: State
    entry: Callable[[], Entry]


@dataclass(slots=True)
class Source:
    """The runs of a reader.

    Attributes:
        runs: They.
        schemas: The tables of each.
        read: Reads one table of some of them.
        id_at: The id of the run at a place; None if there is none there.
        params: The parameters of runs by name, for the table of parameters.
        metadata: The table that has them.
        ranked: The runs that ranks wrote.
        opaque: By table, the rows that went out, for what could not.
    """

    runs: list[Run]
    schemas: Mapping[str, Mapping[str, Schema]]
    read: Callable[[list[str], str], Rows]
    id_at: Callable[[list[str]], str | None]
    params: Callable[[list[str]], Mapping[str, Mapping[str, Any]]]
    metadata: str
    ranked: set[str]
    opaque: dict[str, list[Outgoing]] = field(default_factory=dict)


def source_of(now: Moment, names: Iterable[str]) -> Source:
    """Some runs, as `cox.exports.parquet.Dataset` takes them.

    Raises:
        ExportError: One of them is in a dataset already.
    """
    from cox.analysis.parameters import comparable

    runs, names = now.runs, list(names)
    archived = next((name for name in names if runs.archive(name) is not None), None)
    if archived is not None:
        raise ExportError(f"run {archived} is in the dataset {runs.directory} already: copy its directory")

    def read(some: list[str], table: str) -> Rows:
        rows = now.read(some, table)
        if table == runs.metadata:
            now.keep_parameters(rows)
        return rows

    def params(some: list[str]) -> dict[str, dict[str, Any]]:
        return {name: comparable(own) for name, own in now.parameters(some).items()}

    listed = [
        Run(name, dataset.place_of(*runs.place(name)), now.state(name), partial(_entry, runs, name))
        for name in names
    ]
    rows = now.read(names)
    return Source(listed, rows.schemas, read, _id_at, params, runs.metadata, rows.ranked)


def _entry(runs: Runs, name: str) -> Entry:
    """What a dataset keeps of a run beside its rows."""
    place = dataset.place_of(*runs.place(name))
    status = dataset.portable(dataset.status_to_keep(runs.status(name)))
    return Entry(name, _id_at(place), place, False, status, dataset.portable(runs.environment(name)))


def _id_at(place: list[str]) -> str | None:
    """The id of the run at a place; None if there is none."""
    root = dataset.path_of(place)
    try:
        return runinfo.run_id(layout.RunLayout(root)) if scan.is_run(root) else None
    except (OSError, CoxError):
        return None


class Keys:
    """Which run of a dataset is which run of a reader.

    Args:
        dest: The dataset.
        manifest: What is in it; runs that it does not have are entered.
        source: The reader's runs.
    """

    def __init__(self, dest: Path, manifest: Manifest, source: Source) -> None:
        self._dest, self._manifest, self._source = dest, manifest, source
        self._by_place: dict[tuple[str, ...], list[str]] = {}
        self._by_id: dict[str, list[str]] = {}
        self._old: dict[str, str] = {}
        for key, entry in manifest.runs.items():
            if entry.id is not None:
                self._by_id.setdefault(entry.id, []).append(key)
            if entry.place is not None:
                self._by_place.setdefault(tuple(entry.place), []).append(key)
            else:
                self._old[entry.name] = key
        self._states: dict[str, list[Any]] = {}
        for pieces in manifest.tables.values():
            for piece in pieces:
                for key, state in zip(piece.runs, piece.states, strict=True):
                    self._states.setdefault(key, []).append(state)
        self._used: set[str] = set()
        self._taken = {entry.name for entry in manifest.runs.values()}

    def keys(self) -> dict[str, str]:
        """The key of each of the reader's runs, by its name there."""
        found: dict[str, str] = {}
        for run in self._source.runs:
            if run.name in self._source.schemas:
                key = found[run.name] = self._key(run)
                self._used.add(key)
        return found

    def _key(self, run: Run) -> str:
        state = as_json(run.state)
        here = [key for key in self._by_place.get(tuple(run.place), []) if key not in self._used]
        same = [key for key in here if state in self._states.get(key, ())]
        if same:
            key = same[0]
            if self._manifest.runs[key].status.get("state") in ("running", None):
                self._enter(key, self._fresh(run))
            return key
        fresh = self._fresh(run)
        for key in self._by_id.get(fresh.id, []) if fresh.id is not None else []:
            if key in self._used:
                continue
            place = self._manifest.runs[key].place
            # the same run that went on, or was moved: not a copy of one that is there still
            if key in here or place is None or self._source.id_at(place) != fresh.id:
                return self._enter(key, fresh)
        old = [key for key in (self._old.get(run.name),) if key is not None and key not in self._used]
        for key in [*(key for key in here if self._manifest.runs[key].id is None), *old]:
            if state in self._states.get(key, ()) or self._continues(key, run.name):
                self._forget_states(key)
                return self._enter(key, fresh)
        return self._add(run, fresh)

    def _fresh(self, run: Run) -> Entry:
        fresh = run.entry()
        fresh.is_ranked = run.name in self._source.ranked
        return fresh

    def _continues(self, key: str, name: str) -> bool:
        """Whether the rows that the dataset has of a run are the first ones of a reader's run."""
        for table, pieces in self._manifest.tables.items():
            for piece in pieces:
                if key not in piece.runs or table not in self._source.schemas.get(name, ()):
                    continue
                blocks = self._source.read([name], table).blocks
                i = piece.runs.index(key)
                start, length = sum(piece.lengths[:i]), piece.lengths[i]
                old = dataset.read_block(self._dest, table, piece).part.take(slice(start, start + length))
                if length and not (
                    blocks and _begins_with(blocks[0], Block(piece.schema, old, [], np.array([])))
                ):
                    return False
        return True

    def _enter(self, key: str, fresh: Entry) -> str:
        fresh.name = self._manifest.runs[key].name
        self._manifest.runs[key] = fresh
        return key

    def _forget_states(self, key: str) -> None:
        """Have a run read again: what the version before wrote of it says less."""
        if not key.startswith(OLD):
            return
        for pieces in self._manifest.tables.values():
            for piece in pieces:
                piece.states = [
                    None if own == key else state for own, state in zip(piece.runs, piece.states, strict=True)
                ]

    def _add(self, run: Run, fresh: Entry) -> str:
        base = fresh.id or hashlib.sha256("\0".join(run.place).encode()).hexdigest()[:32]
        key = next(key for key in _numbered(base, "-") if key not in self._manifest.runs)
        fresh.name = self._name(run, fresh.id)
        self._taken.add(fresh.name)
        self._manifest.runs[key] = fresh
        return key

    def _name(self, run: Run, run_id: str | None) -> str:
        """The run's name, or with as much before it or after it as tells it from the others."""
        if run.name not in self._taken:
            return run.name
        if not any(
            entry.name == run.name and entry.place == run.place for entry in self._manifest.runs.values()
        ):
            name, parent = run.name, run.place[0]
            while name in self._taken and Path(parent).name:
                name, parent = f"{Path(parent).name}/{name}", os.fspath(Path(parent).parent)
            if name not in self._taken:
                return name
        base = run.name if run_id is None else f"{run.name}~{run_id[:8]}"
        return next(name for name in _numbered(base, "~") if name not in self._taken)


def _numbered(base: str, mark: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}{mark}{number}"
        number += 1


def _begins_with(block: Block, first: Block) -> bool:
    """Whether the numbers of some rows are those of the first rows of a block; missing ones count as nan."""
    if block.part.nrows < first.part.nrows:
        return False
    for column in first.schema:
        own = block.schema.get(column.name)
        if own is None or not (own.traits.is_number and column.traits.is_number):
            continue
        values: list[Any] = []
        for part, kind in ((block.part, own), (first.part, column)):
            numbers = values_of(part, kind).astype(np.float64)[: first.part.nrows]
            numbers[mask_of(part, column.name)[: first.part.nrows]] = np.nan
            values.append(numbers)
        if not np.array_equal(values[0], values[1], equal_nan=True):
            return False
    return True


def as_json(state: State) -> Any:
    """A state as JSON gives it back."""
    return json.loads(json.dumps(state))
