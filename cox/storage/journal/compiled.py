"""The fast way of a row: one small function for each table, compiled for its columns.

Nearly every row is a plain dict with every column there and each value of its column's own type. To see
that, to encode it and to write it takes a general loop several microseconds; code made for the columns
takes a third. Whatever is not such a row is left to the general way, which converts or explains.
"""

from __future__ import annotations

import datetime
import os
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cox.schema import Column
from cox.storage.journal import format
from cox.timestamps import time_text

if TYPE_CHECKING:
    import threading

    from cox.storage.journal.writing import JournalWriter


class Writer(Protocol):
    """What is needed here of a `RunWriter`."""

    lock: threading.RLock

    @property
    def journal(self) -> JournalWriter:
        """Its journal."""


class State(Protocol):
    """What is needed here of a `TableState`."""

    @property
    def writer(self) -> Writer:
        """The run's writer."""


#: Journals a row and says that it did, or does nothing because it is no such row. Raises as
#: `TableState.append` does.
Append = Callable[[Any], bool]

#: More columns than this are not worth a function of their own.
_MOST_COLUMNS = 128

_encode = msgspec.msgpack.Encoder().encode


def never(data: Any) -> bool:
    """The fast way of a table that has none."""
    return False


def compile_append(
    state: State, table_id: int, columns: Sequence[Column], tail: tuple[int, ...], tail_at: int
) -> Append:
    """Make the fast way of a table.

    Args:
        state: The table.
        table_id: The number under which its journal has declared it.
        columns: The columns that rows are given for, in the journal's order.
        tail: Cells that are the same in every row.
        tail_at: Before which of the others they stand.

    Column names are handed over as values: nothing that a user chose gets into the code.
    """
    log = state.writer.journal
    if log.synced or len(columns) > _MOST_COLUMNS or any(column.traits.is_object for column in columns):
        return never
    scope: dict[str, Any] = {"encode": _encode, "MARK": format.MARK, "crc32": zlib.crc32}
    scope.update(UTC=datetime.timezone.utc, stamp=time_text)
    lock = state.writer.lock
    scope.update(state=state, writer=state.writer, log=log, pack_head=format.pack_head, os=os)
    # `with lock` takes as long as encoding the row. A KeyboardInterrupt can come between any two of these
    # instructions, so on the way out the lock itself is asked whether it was got; that is not ambiguous,
    # because nobody calls this function with the lock held.
    scope.update(acquire=lock.acquire, release=lock.release, is_owned=lock._is_owned)  # type: ignore[attr-defined]
    reads, checks, cells = [], [f"len(data) == {len(columns)}"], []
    for at, column in enumerate(columns):
        most = column.traits.most
        scope[f"N{at}"], scope[f"T{at}"], scope[f"M{at}"] = column.name, column.exact_type, most
        reads.append(f"c{at} = data[N{at}]")
        check = f"type(c{at}) is T{at}" + ("" if most is None else f" and c{at} <= M{at}")
        if column.traits.is_time:  # any other zone may be code of somebody's own
            scope[f"T{at}"] = datetime.datetime
            check = f"{check} and (c{at}.tzinfo is None or c{at}.tzinfo is UTC)"
        checks.append(f"(c{at} is None or {check})" if column.nullable else check)
        cells.append(_cell(column, at))
    cells[tail_at:tail_at] = [str(int(cell)) for cell in tail]
    source = f"""
def append(data):
    if type(data) is not dict:
        return False
    try:
        {"; ".join(reads)}
    except KeyError:
        return False
    if not ({" and ".join(checks)}):
        return False
    try:
        acquire()
        if state.id != {int(table_id)} or state.generation != log.generation:
            release()
            return False
        seq, row = log.next_seq, state.nrows
        try:
            payload = encode(({format.ROW}, seq, {int(table_id)}, row, {", ".join(cells)}))
        except (UnicodeEncodeError, OverflowError):  # an int below all that a column takes, for one
            release()
            return False
        data = pack_head(MARK, len(payload), crc32(payload, log.salt)) + payload
        size = len(data)
        if log.next_seq != seq or log.dirty:
            release()
            return False
        try:
            written = os.pwrite(log.fd, data, log.size)
        except OSError:  # the general way will say it
            written = 0
        # no call from here to the commit, so that no signal handler comes between
        if written != size or log.next_seq != seq or log.fd < 0:
            release()
            return False
        log.size = size = log.size + size
        log.next_seq = seq + 1
        state.nrows = row + 1
        if size >= writer.fold_at:
            writer.fold_if_it_helps()
        release()
    except BaseException:
        if is_owned():
            log.take_back()
            release()
        raise
    return True
"""
    exec(source, scope)  # the code holds nothing but numbers
    made: Append = scope["append"]
    return made


def _cell(column: Column, at: int) -> str:
    """The code of a cell: the variable that has its value, or what makes the cell of it."""
    if not column.traits.is_time:
        return f"c{at}"
    return f"None if c{at} is None else stamp(c{at})" if column.nullable else f"stamp(c{at})"
