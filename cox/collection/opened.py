"""The runs of a reader as opened Stores: each is opened when it is asked for, once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from cox.errors import ReadOnlyError
from cox.store import Store

if TYPE_CHECKING:
    from cox.collection.runs import Runs


class OpenedRuns:
    """The opened stores of some runs.

    Args:
        runs: The runs.
        mode: How they are opened.

    Raises:
        ReadOnlyError: There is no such mode.
    """

    def __init__(self, runs: Runs, mode: str) -> None:
        if mode not in ("r", "a"):
            raise ReadOnlyError(
                f"mode={mode!r}: a collection is opened with 'r', or with 'a' to write to its stores"
            )
        self._runs, self._mode = runs, mode
        #: None for a run that cannot be read and is left out.
        self._opened: dict[str, Store | None] = {}
        self._all: dict[str, Store] | None = None

    def __iter__(self) -> Iterator[Store]:
        for name in list(self._runs.names):
            store = self._store(name)
            if store is not None:
                yield store

    def all(self) -> dict[str, Store]:
        """Open all that can be read, by name; the same each time."""
        if self._all is None:
            opened = {name: self._store(name) for name in self._runs.names}
            self._all = {name: store for name, store in opened.items() if store is not None}
        return self._all

    def one(self, name: str) -> Store:
        """Open the run of a name, or of a beginning of one."""
        full = self._runs.resolve(name)
        store = self._store(full)
        return self._open(full) if store is None else store  # what cannot be read says why

    def close(self) -> None:
        """Close those that were opened."""
        for store in self._opened.values():
            if store is not None:
                store.close()
        self._opened, self._all = {}, None

    def _store(self, name: str) -> Store | None:
        if name not in self._opened:
            self._opened[name] = self._runs.guarded(name, partial(self._open, name))
        return self._opened[name]

    def _open(self, name: str) -> Store:
        if self._runs.archive(name) is not None:
            raise ReadOnlyError(
                f"run {name} is in the Parquet dataset {self._runs.directory}, which has rows and no stores: "
                "read it with df, params, runs, compare …"
            )
        root = self._runs.layout(name).root
        return Store(root.parent, root.name, mode=self._mode, allow_pickle=self._runs.allow_pickle)
