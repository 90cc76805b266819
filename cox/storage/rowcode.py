"""The fast way of a row: one small function for each table, compiled for its columns.

Nearly every row is a plain dict with every column there and each value of its column's own type. To see
that, to encode it and to write it takes a general loop several microseconds; code made for the columns
takes a third. Whatever is not such a row is left to the general way, which converts or explains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cox.schema import INT_MAX, OBJECT_KINDS, Column

if TYPE_CHECKING:
    from cox.storage.writer import TableState

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
    state: TableState, kind: int, table_id: int, columns: Sequence[Column], tail: tuple[int, ...]
) -> Append:
    """Make the fast way of a table.

    Args:
        state: The table.
        kind: The number that begins a row's record.
        table_id: The number under which its journal has declared it.
        columns: The columns that rows are given for, in the journal's order.
        tail: Cells that are the same in every row, behind the others.

    Column names are handed over as values: nothing that a user chose gets into the code.
    """
    if len(columns) > _MOST_COLUMNS or any(column.kind in OBJECT_KINDS for column in columns):
        return never
    log = state.writer.journal
    scope: dict[str, Any] = {"encode": _encode, "HIGH": INT_MAX, "append_payload": log.append_payload}
    lock = state.writer.lock
    scope.update(state=state, writer=state.writer, log=log)
    # `with lock` takes as long as encoding the row. A KeyboardInterrupt can come between any two of these
    # instructions, so on the way out the lock itself is asked whether it was got; that is not ambiguous,
    # because nobody calls this function with the lock held.
    scope.update(acquire=lock.acquire, release=lock.release, is_owned=lock._is_owned)  # type: ignore[attr-defined]
    reads, checks, cells = [], [f"len(data) == {len(columns)}"], []
    for at, column in enumerate(columns):
        scope[f"N{at}"], scope[f"T{at}"] = column.name, column.exact_type
        reads.append(f"c{at} = data[N{at}]")
        check = f"type(c{at}) is T{at}" + (f" and c{at} <= HIGH" if column.kind == "int" else "")
        checks.append(f"(c{at} is None or {check})" if column.nullable else check)
        cells.append(f"c{at}")
    cells += [str(int(cell)) for cell in tail]
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
        if state.id != {int(table_id)}:
            release()
            return False
        try:
            payload = encode(({int(kind)}, log.next_seq, {int(table_id)}, state.nrows, {", ".join(cells)}))
        except (UnicodeEncodeError, OverflowError):  # an int below all that a column takes, for one
            release()
            return False
        try:
            size = append_payload(payload)
        except OSError as error:
            raise state.refusal(error) from error
        state.nrows += 1
        if size >= writer.fold_at:
            writer.fold_if_it_helps()
        release()
    except BaseException:
        if is_owned():
            release()
        raise
    return True
"""
    exec(source, scope)  # the code holds nothing but numbers
    made: Append = scope["append"]
    return made
