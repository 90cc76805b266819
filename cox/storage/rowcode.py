"""The fast way of a row: one small function for each table, compiled for its columns.

Nearly every row is a plain dict with every column there and each value of its column's own type. To see
that and to encode it takes a general loop about a microsecond; code made for the columns takes a
third. Whatever is not such a row is left to the general way, which converts or explains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from cox.schema import INT_MAX, INT_MIN, OBJECT_KINDS, Column

#: A row, and the numbers that go before its cells: sequence, table, row. None if it is not such a row.
RowEncoder = Callable[[Any, int, int, int], "bytes | None"]

#: More columns than this are not worth a function of their own.
_MOST_COLUMNS = 128

_encode = msgspec.msgpack.Encoder().encode


def never(data: Any, seq: int, table: int, row: int) -> None:
    """The encoder of a table that has no fast way."""


def compile_encoder(kind: int, columns: Sequence[Column], tail: tuple[Any, ...]) -> RowEncoder:
    """Make the encoder for a table.

    Args:
        kind: The number that begins a row's record.
        columns: The columns, in the journal's order.
        tail: Cells that are the same in every row, behind the others.

    Column names are handed over as values: nothing that a user chose gets into the code.
    """
    if len(columns) > _MOST_COLUMNS or any(column.kind in OBJECT_KINDS for column in columns):
        return never
    scope: dict[str, Any] = {"encode": _encode, "LOW": INT_MIN, "HIGH": INT_MAX, "TAIL": tail}
    reads, checks, cells = [], ["len(data) == COUNT"], []
    scope["COUNT"] = len(columns)
    for at, column in enumerate(columns):
        scope[f"N{at}"], scope[f"T{at}"] = column.name, column.exact_type
        reads.append(f"c{at} = data[N{at}]")
        checks.append(
            f"type(c{at}) is T{at}" + (f" and LOW <= c{at} <= HIGH" if column.kind == "int" else "")
        )
        cells.append(f"c{at}")
    source = f"""
def encode_row(data, seq, table, row):
    if type(data) is not dict:
        return None
    try:
        {"; ".join(reads)}
        if {" and ".join(checks)}:
            return encode(({kind}, seq, table, row, {", ".join(cells)}, *TAIL))
    except (KeyError, UnicodeEncodeError):
        return None
"""
    exec(source, scope)  # the code holds nothing but numbers
    made: RowEncoder = scope["encode_row"]
    return made
