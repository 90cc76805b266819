"""Many rows of a journal at once, as columns: the fast way of a fold, and of reading a live run.

The rows of a training loop are encoded alike: records of one length have their cells in the same places.
So one record of a length is looked at, token by token, and the others are compared with it and decoded
by numpy, for a twentieth of what it costs to decode each. Only journals that are as their writer wrote
them are read here. Of any other nothing is said: `journal` and `snapshot` go through it record by record.
"""

from __future__ import annotations

import operator
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from cox.errors import DamagedError
from cox.schema import Column
from cox.storage.columns import Array, Part, decode_text, dtype_of, is_text, lacks, mask_of, part_from_rows
from cox.storage.journal import format

#: Journals shorter than this, in bytes, are read faster record by record.
WORTH_IT = 16 * 1024
#: Fewer rows than this are decoded one by one, even if they are encoded alike.
FEW = 32
#: So many unlike records of one length are looked at before the rest are decoded one by one.
_TRIES = 8
#: How many bytes, and how many records, fit into a processor's cache.
_SLAB, _AT_ONCE = 256 * 1024, 8192

#: msgpack's codes of numbers, and how numpy reads what follows.
_NUMBERS = {0xCB: ">f8", 0xCC: "u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8"}
_NUMBERS |= {0xD0: "i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8"}
#: msgpack's codes of text, and how many bytes say its length.
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
#: What stands before the cells of a row.
_HEAD = ("kind", "seq", "table", "number")


@dataclass(slots=True)
class Rows:
    """The records of a journal, of which each has its checksum and makes sense.

    Attributes:
        payloads: Their bytes.
        seq: Sequence numbers, of shape (n,), as are the next two.
        table: The number of a row's table; -1 for other records.
        number: The number of a row.
        others: The records that are no rows, by their index among all.
    """

    payloads: _Payloads
    seq: Array
    table: Array
    number: Array
    others: dict[int, list[Any]] = field(default_factory=dict)
    _groups: dict[int, list[_Group]] = field(default_factory=lambda: defaultdict(list))
    _single: dict[int, dict[int, list[Any]]] = field(default_factory=lambda: defaultdict(dict))

    def records(self) -> list[list[Any]]:
        """All of them, decoded one by one."""
        return [format.decode(self.payloads[at]) for at in range(len(self.seq))]

    def width(self, table: int) -> int:
        """How many cells the longest row of a table has."""
        in_groups = (len(group.cells) for group in self._groups[table])
        return max(*in_groups, *(len(record) - len(_HEAD) for record in self._single[table].values()), 0, 0)

    def part(self, table: int, columns: Sequence[Column], chosen: Array) -> Part:
        """Rows of a table as columns.

        Args:
            table: The table's number.
            columns: Its columns, as many as the longest row has or more.
            chosen: Which of the records they are, ascending.

        Raises:
            DamagedError: A row has other cells than these columns hold.
            OverflowError: An int is too large for its column.
        """
        place = np.full(len(self.seq), -1)
        place[chosen] = np.arange(len(chosen))
        pieces = []
        for at, piece in self._pieces(table, columns):
            kept = place[at] >= 0
            if kept.any():
                pieces.append((place[at[kept]], piece if kept.all() else piece.take(kept)))
        part = Part(len(chosen), {})
        for column in columns:
            name, missing = column.name, np.zeros(len(chosen), dtype=np.bool_)
            there = [(to, piece.values[name]) for to, piece in pieces if name in piece.values]
            part.values[name] = (_joined_texts if is_text(column) else _joined)(there, column, len(chosen))
            for to, piece in pieces:
                if lacks(piece, name):
                    missing[to] = mask_of(piece, name)
            if missing.any():
                part.missing[name] = missing
        return part

    def _pieces(self, table: int, columns: Sequence[Column]) -> Iterator[tuple[Array, Part]]:
        """Which of the records they are, and their cells: of each group, and of the rows that are in none."""
        for group in self._groups[table]:
            yield group.at, group.part(columns)
        single = self._single[table]
        if single:
            rows = [record[len(_HEAD) :] for record in single.values()]
            yield np.fromiter(single, dtype=np.int64), part_from_rows(rows, columns)


def _joined(pieces: list[tuple[Array, Array]], column: Column, nrows: int) -> Array:
    made = np.zeros(nrows, dtype=dtype_of(column.kind))
    for to, values in pieces:
        made[to] = values
    return made


def _joined_texts(pieces: list[tuple[Array, Array]], column: Column, nrows: int) -> Array:
    """Fixed-width UTF-8, unless that would be mostly padding, or lose a NUL at the end."""
    width, filled, lossy = 1, 64 * nrows, False
    for _, texts in pieces:
        if texts.dtype == object:
            lengths = [len(text.encode()) for text in texts]
            width, filled = max(width, max(lengths)), filled + 2 * sum(lengths)
            lossy |= any(text.endswith("\0") for text in texts)
        else:
            width, filled = max(width, texts.itemsize), filled + 2 * texts.nbytes
    fixed = not lossy and width * nrows <= filled
    made = np.zeros(nrows, dtype=f"S{width}") if fixed else np.full(nrows, "", dtype=object)
    for to, texts in pieces:
        if texts.dtype == object:
            made[to] = [text.encode() for text in texts] if fixed else texts
        else:
            made[to] = texts if fixed else decode_text(texts)
    return made


# --- Framing


def read(data: bytes, salt: int, start: int) -> tuple[Rows, int] | None:
    """Read the records of a journal from `start` on, as far as they follow one another.

    Returns:
        The records, and where the last of them ends. Nothing if the journal is short, or a record's
        checksum or payload is not what it should be.
    """
    if len(data) < WORTH_IT:
        return None
    starts, lengths, stop = _chain(data, start)
    if not len(starts) or lengths.min() <= 4:  # no record is so short
        return None
    checksums = _items(data, starts - 4, "<u4")
    seq, table, number = np.full((3, len(starts)), -1)
    found = Rows(_Payloads(data, starts, lengths), seq, table, number)
    left: list[Array] = []
    try:
        for records in _by_length(lengths):
            if len(records) < FEW:
                left.append(records)
                continue
            payloads = _items(data, starts[records], f"V{lengths[records[0]]}")
            if not _checksums_hold(payloads, checksums[records], salt):
                return None
            left += _take_groups(found, records, payloads)
        for at in np.sort(np.concatenate(left)).tolist():
            if zlib.crc32(found.payloads[at], salt) != checksums[at]:
                return None
            _take_single(found, at, format.decode(found.payloads[at]))
    except (LookupError, TypeError, OverflowError):  # a record that makes no sense
        return None
    counts = np.concatenate([seq, number[table >= 0]])
    return (found, stop) if counts.min() >= 0 and counts.max() < format.MOST_RECORDS else None


@dataclass(slots=True)
class _Payloads:
    """Where in a journal the payloads stand."""

    data: bytes
    starts: Array
    lengths: Array

    def __getitem__(self, at: int) -> bytes:
        start, length = int(self.starts[at]), int(self.lengths[at])
        return self.data[start : start + length]


def _chain(data: bytes, start: int) -> tuple[Array, Array, int]:
    """Where payloads begin, how long they are, and where the last one ends; the first one begins at `start`.

    Instead of going from record to record, all marks are found at once: nearly each of them follows the
    record of the one before. Where that is not so, a mark stands in a payload, or the chain is broken.
    """
    marks = _marks(data)
    marks = marks[marks <= len(data) - format.HEAD_SIZE]
    lengths = _items(data, marks + len(format.MARK), "<u4").astype(np.int64)
    ends = marks + format.HEAD_SIZE + lengths
    stop, whole = start, np.zeros(len(marks), dtype=np.bool_)
    for last in [*np.flatnonzero(ends[:-1] != marks[1:]).tolist(), len(marks) - 1]:
        first = int(np.searchsorted(marks, stop))
        if first > last:
            continue  # marks in a payload
        if marks[first] != stop:
            break
        unfinished = bool(ends[last] > len(data))
        whole[first : last + 1 - unfinished] = True
        stop = int(marks[last] if unfinished else ends[last])
        if unfinished:
            break
    return marks[whole] + format.HEAD_SIZE, lengths[whole], stop


def _marks(data: bytes) -> Array:
    raw = np.frombuffer(data, dtype=np.uint8)
    first, second = format.MARK
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(raw), _SLAB):
        slab = raw[start : start + _SLAB + 1]
        found.append(np.flatnonzero((slab[:-1] == first) & (slab[1:] == second)) + start)
    return np.concatenate(found)


def _items(data: bytes, positions: Array, dtype: str) -> Array:
    """What stands at these positions."""
    size = np.dtype(dtype).itemsize
    everywhere: Array = np.ndarray((len(data) - size + 1,), dtype=dtype, buffer=data, strides=(1,))
    return everywhere[positions]


def _by_length(lengths: Array) -> list[Array]:
    """Which of the records have one length, for each length there is."""
    short = np.min_scalar_type(int(lengths.max()))  # numpy sorts small integers by counting
    order = np.argsort(lengths.astype(short), kind="stable")
    return np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)


def _checksums_hold(payloads: Array, checksums: Array, salt: int) -> bool:
    """Whether payloads of one length have the checksums that they should.

    A CRC's starting value is but XORed to the first four bytes. So one CRC can run over all of them, if
    what it should be behind a payload is taken out of the next one's beginning. Where it is another,
    the difference stays to the end: unless two such cancel out, by one in 2**32.
    """
    chained = payloads.view([("first", "<u4"), ("rest", f"V{payloads.itemsize - 4}")])
    before = np.concatenate([np.array([salt], dtype="<u4"), checksums[:-1]]) ^ np.uint32(salt)
    running = salt
    for start in range(0, len(chained), _AT_ONCE):
        some = chained[start : start + _AT_ONCE].copy()
        some["first"] ^= before[start : start + _AT_ONCE]
        running = zlib.crc32(some, running)
    return running == int(checksums[-1])


# --- Rows that are encoded alike


@dataclass(slots=True)
class _Token:
    """One value in a payload.

    Attributes:
        kind: float, int, bool, text or nil.
        format: How numpy reads it; nothing for nil, and text of no length.
        at: Where that begins.
        end: Where the next token begins.
        same: Of its bytes from the first on, the bits that are the same in all rows that are encoded alike.
    """

    kind: str
    format: str
    at: int
    end: int
    same: bytes = b"\xff"


@dataclass(slots=True)
class _Group:
    """Rows of one table that are encoded alike.

    Attributes:
        at: Which of the records they are.
        cells: The tokens behind those of `_HEAD`.
        rows: Their payloads, with a field for each token that has a format: those of `_HEAD`, and `0`, `1`, …
    """

    at: Array
    cells: list[_Token]
    rows: Array

    def part(self, columns: Sequence[Column]) -> Part:
        """These rows as columns. Raises DamagedError where a cell is not what its column holds."""
        part = Part(len(self.at), {})
        for number, (cell, column) in enumerate(zip(self.cells, columns, strict=False)):
            if cell.kind == "nil":
                continue
            if cell.kind != ("text" if is_text(column) else column.kind):
                raise DamagedError(f"column {column.name!r} holds something else than {column.kind}")
            values = self.rows[str(number)] if cell.format else np.zeros(len(self.at), dtype="S1")
            part.values[column.name] = values == 0xC3 if cell.kind == "bool" else values
        return part


def _take_groups(found: Rows, records: Array, payloads: Array) -> Iterator[Array]:
    """Take rows that are encoded alike out of records of one length. Yields which are left."""
    for _ in range(_TRIES):
        if len(records) < FEW:
            break
        tokens = _tokens(payloads[0].tobytes())
        alike = _encoded_alike(payloads, tokens) if tokens else np.arange(len(records)) == 0
        some = payloads if alike.all() else payloads[alike]
        if tokens and len(some) >= FEW and _texts_are_plain(some, tokens):
            _take_group(found, records[alike], some, tokens)
        else:
            yield records[alike]
        records, payloads = records[~alike], payloads[~alike]
    yield records


def _take_group(found: Rows, records: Array, payloads: Array, tokens: list[_Token]) -> None:
    names = [*_HEAD, *map(str, range(len(tokens) - len(_HEAD)))]
    fields = {
        name: (token.format, token.at) for name, token in zip(names, tokens, strict=True) if token.format
    }
    formats, offsets = zip(*fields.values(), strict=True)
    layout = {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": payloads.itemsize}
    rows = payloads.view(np.dtype(layout))  # type: ignore[call-overload] # as numpy's documentation has it
    table = _table_number(int(rows["table"][0]))
    found.seq[records], found.table[records], found.number[records] = rows["seq"], table, rows["number"]
    found._groups[table].append(_Group(records, tokens[len(_HEAD) :], rows))


def _take_single(found: Rows, at: int, record: list[Any]) -> None:
    found.seq[at] = record[1]
    if record[0] != format.ROW:
        found.others[at] = record
        return
    table = found.table[at] = _table_number(record[2])
    found.number[at] = operator.index(record[3])
    found._single[table][at] = record


def _table_number(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise TypeError("a row of no table")
    return number


def _encoded_alike(payloads: Array, tokens: list[_Token]) -> Array:
    """Which payloads have the tokens that the first one has, in the same table."""
    matrix = _matrix(payloads)
    same = np.zeros(matrix.shape[1], dtype=np.uint8)
    start = tokens[0].at
    same[:start] = 0xFF
    for token, name in zip_longest(tokens, _HEAD):
        bits = b"\xff" * (token.end - start) if name in ("kind", "table") else token.same
        same[start : start + len(bits)] = np.frombuffer(bits, dtype=np.uint8)
        start = token.end
    alike = np.ones(len(matrix), dtype=np.bool_)
    for at in np.flatnonzero(same):
        alike &= (matrix[:, at] & same[at]) == (matrix[0, at] & same[at])
    return alike


def _texts_are_plain(payloads: Array, tokens: list[_Token]) -> bool:
    """Whether all texts are UTF-8, and none ends in NUL, which numpy would drop."""
    matrix = _matrix(payloads)
    for token in tokens:
        if token.kind == "text" and token.format:
            texts = matrix[:, token.at : token.end]
            if not texts[:, -1].all():
                return False
            try:  # all at once, with a NUL behind each, over which no character reaches
                np.pad(texts, ((0, 0), (0, 1))).tobytes().decode()
            except UnicodeDecodeError:
                return False
    return True


def _matrix(payloads: Array) -> Array:
    return payloads.view(np.uint8).reshape(len(payloads), -1)


def _tokens(payload: bytes) -> list[_Token]:
    """The values of a row's payload. None if it is another record, or holds what no column does."""
    if payload[0] == 0xDC:
        count, at = int.from_bytes(payload[1:3], "big"), 3
    else:
        count, at = payload[0] & 0x0F if payload[0] & 0xF0 == 0x90 else 0, 1
    tokens: list[_Token] = []
    while at < len(payload) and len(tokens) < count:
        token = _token(payload, at)
        if token is None:
            return []
        tokens.append(token)
        at = token.end
    head = tokens[: len(_HEAD)]
    if at != len(payload) or len(tokens) != count or [token.kind for token in head] != ["int"] * len(_HEAD):
        return []
    is_row = head[0].format in ("i1", "u1") and payload[head[0].at] == format.ROW
    return tokens if is_row else []


def _token(payload: bytes, at: int) -> _Token | None:
    code = payload[at]
    if code < 0x80 or code >= 0xE0:  # a small number, which is its own code
        return _Token("int", "i1", at, at + 1, b"\x80" if code < 0x80 else b"\xe0")
    if code == 0xC0:
        return _Token("nil", "", at, at + 1)
    if code in (0xC2, 0xC3):
        return _Token("bool", "u1", at, at + 1, b"\xfe")
    if code in _NUMBERS:
        layout = _NUMBERS[code]
        end = at + 1 + int(layout[-1])
        if code == 0xCF and payload[at + 1 : end] >= b"\x80":
            return None  # beyond what an int64 holds
        return _Token(
            "float" if code == 0xCB else "int", layout, at + 1, end, b"\xff\x80" if code == 0xCF else b"\xff"
        )
    if 0xA0 <= code < 0xC0 or code in _TEXTS:
        start = at + 1 + _TEXTS.get(code, 0)
        length = int.from_bytes(payload[at + 1 : start], "big") if code in _TEXTS else code & 0x1F
        return _Token("text", f"S{length}" * bool(length), start, start + length, b"\xff" * (start - at))
    return None
