"""The parameters of a run: the first row of its table `metadata`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from cox.errors import CoxError
from cox.objects import codec, unreadable
from cox.objects.trust import Trust, place_of
from cox.objects.unreadable import Unreadable
from cox.schema import Column, cell_value, shown
from cox.storage import fs, layout

if TYPE_CHECKING:
    from cox.storage.columns import TableData

#: The table, unless told otherwise.
METADATA = layout.METADATA_TABLE
#: Of `cox.utils.Parameters` a schema makes one column of this name, which holds all of them.
_ALL_IN_ONE = "params"
#: How many values of a parameter a message tells.
_MOST_TOLD = 20


class RunParameters(Mapping[str, Any]):
    """The parameters of a run, each decoded when it is asked for.

    An object that cannot be rebuilt here (nobody vouched for it, or its code is gone) is an `Unreadable`.

    Args:
        cells: The columns of the first row of its metadata and its cells; None is missing.
        decode: Decodes a cell.
        run: Tells where the run is, for what is stored in files.
    """

    def __init__(
        self,
        cells: Mapping[str, tuple[Column, Any]],
        decode: Callable[[Column, Any], Any] = lambda column, cell: cell,
        run: Callable[[], layout.RunLayout] | None = None,
    ) -> None:
        self._cells, self._decode, self._run = cells, decode, run
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        inner = self._unfolded
        return inner[name] if name in inner else self._value(self._own[name])

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._unfolded})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def is_plain(self, name: str) -> bool:
        """Whether a parameter is a number, a truth value or text, as far as it is there."""
        inner = self._unfolded
        if name in inner:
            return isinstance(inner[name], (bool, int, float, str, type(None)))
        column, _ = self._cells.get(name, (None, None))
        return column is None or not column.traits.is_object

    def digest(self, name: str) -> str | None:
        """SHA-256 of a parameter as it is stored, in hex; None for what is not an object of its own."""
        column, cell = self._cells.get(name, (None, None))
        if column is None or cell is None or not column.traits.is_object or name in self._unfolded:
            return None
        value = self._value(name)
        if isinstance(value, Unreadable):
            return value.digest
        if column.traits.in_cell:
            return unreadable.digest_of_text(cell)
        payload = self._payload(cell)
        return None if payload is None else unreadable.digest_of_bytes(payload)

    @cached_property
    def _unfolded(self) -> Mapping[str, Any]:
        """The parameters that one column holds together; empty where there is no such column."""
        value = self._value(_ALL_IN_ONE) if _ALL_IN_ONE in self._cells else None
        return value if is_unfolded(value) else {}

    @cached_property
    def _own(self) -> dict[str, str]:
        """The names of those that have a column of their own."""
        is_left_out = _ALL_IN_ONE in self._cells and is_unfolded(self._value(_ALL_IN_ONE))
        return {name: name for name in self._cells if not (is_left_out and name == _ALL_IN_ONE)}

    def _value(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        column, cell = self._cells[name]
        value = None if cell is None else self._decoded(column, cell)
        if not isinstance(value, Unreadable):  # somebody may vouch for it in the meantime
            self._values[name] = value
        return value

    def _decoded(self, column: Column, cell: Any) -> Any:
        try:
            return self._decode(column, cell)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - code that rebuilds an object may raise anything
            reason = str(error) if isinstance(error, CoxError) else f"{type(error).__name__}: {error}"
        return stand_in(column, cell, self._layout(), reason)

    def _payload(self, cell: str) -> bytes | None:
        return _payload(cell, self._layout())

    def _layout(self) -> layout.RunLayout | None:
        return None if self._run is None else self._run()


def stand_in(column: Column, cell: str, run: layout.RunLayout | None, reason: str) -> Unreadable:
    """What stands for an object that cannot be rebuilt.

    Args:
        column: Its column.
        cell: The cell.
        run: The run, for what is stored in files.
        reason: Why it cannot be.
    """
    if column.traits.in_cell:
        return unreadable.of_text(cell, reason)
    payload = _payload(cell, run)
    if payload is None:
        return Unreadable("missing object", hashlib.sha256(str(cell).encode()).hexdigest(), reason)
    return unreadable.of_bytes(payload, reason)


def _payload(cell: str, run: layout.RunLayout | None) -> bytes | None:
    """The content of the file that a cell names; None if there is none."""
    if run is None:
        return None
    try:
        with fs.open_regular(run.objects_dir / Path(cell).name) as file:
            return file.read()
    except OSError:
        return None


def first_row(table: TableData, *, is_ranked: bool = False) -> dict[str, tuple[Column, Any]]:
    """The columns of a table's first row and its cells, objects still as they are stored; None is missing.

    Args:
        table: The table.
        is_ranked: Whether the column `rank` tells who wrote a row, and so is not a parameter. The first row
            is then the first of the lowest rank.
    """
    row = 0
    rank = table.schema.get(layout.RANK_COLUMN) if is_ranked else None
    if rank is not None:
        ranks, missing = table.column(rank)
        row = int((ranks if missing is None else ranks * ~missing).argmin())
    first = {}
    for column in table.schema:
        if column == rank:
            continue
        values, missing = table.column(column)
        is_missing = missing is not None and bool(missing[row])
        first[column.name] = (column, None if is_missing else values[row : row + 1].tolist()[0])
    return first


def decoded(column: Column, cell: Any, run: layout.RunLayout, trust: Trust, table: str) -> Any:
    """A cell as the object that it stands for.

    Args:
        column: Its column.
        cell: The cell.
        run: Its run.
        trust: Which of the run's objects may be rebuilt.
        table: Its table.

    Raises:
        UntrustedObjectError: Nobody vouched for it.
        RebuildError: The code that it is made of is gone.
    """
    if cell is None:
        return None
    if column.traits.in_cell:
        return codec.from_text(cell, trust, place_of(run, table, column.name))
    if column.traits.is_rebuilt:
        path = run.objects_dir / Path(cell).name
        return codec.read_pickle(path, trust, place_of(run, table, column.name))
    return cell_value(column, cell)


def parameters(
    table: TableData | None, run: layout.RunLayout, trust: Trust, *, is_ranked: bool = False
) -> dict[str, Any]:
    """The parameters of a run, without objects that cannot be rebuilt; empty if it has no row of them.

    Args:
        table: Its metadata, if there are any.
        run: The run.
        trust: Which of its objects may be rebuilt.
        is_ranked: As for `first_row`.
    """
    if table is None or not table.nrows:
        return {}

    def decode(column: Column, cell: Any) -> Any:
        return decoded(column, cell, run, trust, table.name)

    values = RunParameters(first_row(table, is_ranked=is_ranked), decode, lambda: run)
    return {name: value for name, value in values.items() if not isinstance(value, Unreadable)}


def is_unfolded(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether the value of the column `params` is a dict of all parameters."""
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def values_told(found: Collection[Mapping[str, Any]], params: Iterable[str]) -> str:
    """Which values some parameters have, for a message: `lr: 0.1 (2 runs), 1.0; arch: 'vgg'`."""
    told = []
    for param in dict.fromkeys(params):
        counts = Counter(shown(values.get(param)) for values in found)
        seen = [text + (f" ({runs} runs)" if runs > 1 else "") for text, runs in counts.items()]
        more = f" and {len(seen) - _MOST_TOLD} more" if len(seen) > _MOST_TOLD else ""
        told.append(f"{param}: {', '.join(seen[:_MOST_TOLD])}{more}")
    return "; ".join(told)
