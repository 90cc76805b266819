"""Journals read by columns and record by record: whatever is in them, both ways give the same.

The journals are made by the description in docs/FORMAT.md: as a writer makes them, and then, of some,
records are dropped, repeated, changed and put elsewhere, bits are flipped and the file is cut off.
"""

from __future__ import annotations

import copy
import math
import os
import random
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cox.storage import hdf5, journal, replay, snapshot
from cox.storage.journal import columnar

EXAMPLES = int(os.environ.get("COX_PROPERTY_EXAMPLES", "60"))
SALT = 0x9ABCDEF0
PATH = Path("main-9abcdef0.log")

#: A float that looks like three marks.
(MARKS,) = struct.unpack(">d", b"\xc0\xc5\xc0\xc5\xc0\xc5\0\0")
#: Cells as a writer encodes them: at the ends of every width, and in between.
EDGES = [0, 1, 2**5, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**53, 2**63]
VALUES: dict[str, list[Any]] = {
    "float": [0.5, 1.0, 1 / 3, math.nan, -0.0, math.inf, -math.inf, 5e-324, MARKS],
    "int": [n for edge in EDGES for n in (-edge - 1, -edge, edge - 1, edge) if -(2**63) <= n < 2**63],
    "bool": [True, False],
    "str": [
        "",
        "train",
        "val",
        "é",
        "漢",
        "ab",
        "a\0",
        "\0",
        "\0b",
        "x" * 31,
        "x" * 32,
        "x" * 300,
        "y" * 70_000,
    ],
}
VALUES["object"] = VALUES["str"]
#: What no writer puts there: cells of other types, numbers of other widths, text that is none.
ODD = [b"\xa1\xff", b"\xa2\xc3A", b"\xcf" + b"\xff" * 8, b"\xca\x3f\x80\0\0", b"\xcd\0\x05", b"\xd9\x01a"]
ODD += [b"\xd0\x05", b"\xc4\x01a", b"\x90", b"\x80", b"\xc1", b"\xc0", b"\xc3", b"\xa0", b"\x01", b"\xff"]
ODD += [b"\xcb\x7f\xf0\0\0\0\0\0\x01", b"\xcb\xff\xf8\0\0\0\0\0\x05", b"\xdb\0\0\0\x01a", b"\xd9\x00"]
ODD_RECORDS: list[Any] = [
    [0, 1.5, 0, 0],
    [0, 2**63, 0, 0],
    [0, True, 0, 0],
    [0],
    {"a": 1},
    [1, 5, 0, "t", [["a", "no kind", False]]],
    [1, 5, -1, "t", [["a", "int", False]]],
    [2, 5, "t", -1],
    [2, 5, "t", "1"],
    [2, 5, "t", 1e99],
    [2, 5, ["t"], 1],
    [0, 5, "x", 0, 1],
    [0, 5, -1, 0, 1],
    [0, 5, 0, -1, 1],
    [9, 5],
    [9, 5, "a record of the future"],
    b"\xdc\x00\x05\xcd\x00\x01\x05\x00\xa1t\x90",  # a declaration without columns, in unusual widths
    b"\x94\xcd\x00\x01\x05\x00\x00",  # and what a row of that kind would be
    b"\x94\xcd\x00\x00\x05\x00\x00",
    b"\x74\x00\x05\x00\x00",
    b"",
    b"\xc1",
]


class Writer:
    """What a writer would put into its journal, payload by payload."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.seq = 0
        self.payloads: list[bytes] = []
        self.tables: dict[str, tuple[int, list[tuple[str, str]]]] = {}
        self.nrows: dict[str, int] = {}
        self.ids = choose.choice([0, 0, 0, 126, 254, 65534])

    def put(self, kind: int, *fields: Any) -> None:
        self.payloads.append(msgspec.msgpack.encode([kind, self.seq, *fields]))
        self.seq += 1

    def declare(self, name: str) -> None:
        """Declare a table, or more columns of it."""
        _, columns = self.tables.get(name, (0, []))
        kinds = self.choose.choices(sorted(VALUES), k=self.choose.choice([1, 2, 3, 14]))
        columns = [*columns, *((f"{len(columns)}.{at}", kind) for at, kind in enumerate(kinds))]
        self.tables[name] = (self.ids, columns)
        for _ in range(2):
            self.put(1, self.ids, name, [[column, kind, True] for column, kind in columns])
        self.ids += 1

    def write_rows(self, names: list[str]) -> None:
        """Rows that are mostly alike, of some tables in turns."""
        alike = {name: self.row(name) for name in names}
        for _ in range(self.choose.randrange(1, 15)):
            for name in names:
                number = self.nrows.get(name, 0)
                row = list(alike[name])
                if row and self.choose.randrange(2):  # one cell is another
                    at = self.choose.randrange(len(row))
                    row[at] = self.cell(self.tables[name][1][at][1])
                self.put(0, self.tables[name][0], number, *row)
                self.nrows[name] = number + 1

    def row(self, name: str) -> list[Any]:
        row = [self.cell(kind) for _, kind in self.tables[name][1]]
        return row[: self.choose.choice([len(row), len(row), 1])]

    def cell(self, kind: str) -> Any:
        return None if self.choose.randrange(8) == 0 else self.choose.choice(VALUES[kind])

    def rewind(self, name: str) -> None:
        keep = self.choose.randint(0, self.nrows.get(name, 0))
        for _ in range(2):
            self.put(2, name, keep)
        self.nrows[name] = keep

    def write(self, steps: int) -> None:
        for _ in range(steps):
            name = self.choose.choice("tuv")
            what = self.choose.choice(["rows", "rows", "rows", "declare", "rewind"])
            if what == "declare" or (what == "rows" and name not in self.tables):
                self.declare(name)
            elif what == "rewind":
                self.rewind(name)
            else:
                self.write_rows(
                    self.choose.sample(sorted(self.tables), self.choose.randint(1, len(self.tables)))
                )


@st.composite
def runs(draw: st.DrawFn, *, odd: bool) -> tuple[list[bytes], list[bytes]]:
    """What a store file holds of a writer, payload by payload, and its journal, which may begin before."""
    choose = random.Random(draw(st.integers(0, 2**32)))
    writer = Writer(choose)
    writer.write(draw(st.integers(0, 6)))
    folded = list(writer.payloads)
    if choose.randrange(2):  # a fold, and a new journal; otherwise the same goes on
        writer.payloads, writer.tables = [], {}
    writer.write(draw(st.integers(1, 12)))
    payloads = writer.payloads
    for _ in range(draw(st.integers(1, 3)) if odd else 0):
        make_odd(choose, payloads)
    return folded, payloads


def make_odd(choose: random.Random, payloads: list[bytes]) -> None:
    """Have a record that no writer would put there."""
    at, other = choose.randrange(len(payloads)), choose.randrange(len(payloads))
    match choose.choice(["drop", "repeat", "move", "odd record", "cell", "cell", "number", "count", "bytes"]):
        case "drop":
            del payloads[at : at + choose.randint(1, 3)]
            payloads[len(payloads) :] = [] if payloads else [b"\x90"]
        case "repeat":
            payloads.insert(other, payloads[at])
        case "move":
            payloads.insert(other, payloads.pop(at))
        case "odd record":
            odd = choose.choice(ODD_RECORDS)
            payloads.insert(at, odd if isinstance(odd, bytes) else msgspec.msgpack.encode(odd))
        case "bytes":  # of one that is as long as the others
            broken = bytearray(payloads[at] or b"\0")
            where = choose.choice([-1, choose.randrange(len(broken))])
            broken[where] = choose.choice([0, 1, 0x7F, 0x80, 0xC0, 0xFF, broken[where] ^ 1])
            payloads[at] = bytes(broken)
        case what:
            payloads[at] = with_oddity(choose, payloads[at], what)


def with_oddity(choose: random.Random, payload: bytes, what: str) -> bytes:
    """The record with another cell or number, or another count of cells."""
    try:
        pieces = [bytes(piece) for piece in msgspec.msgpack.decode(payload, type=list[msgspec.Raw])]
    except ValueError:
        return payload
    if what == "number" and len(pieces) > 3:
        pieces[choose.randrange(4)] = msgspec.msgpack.encode(choose.randint(-2, 300))
    elif what == "cell" and pieces:
        pieces[-1] = choose.choice(ODD)
    elif what == "count":
        pieces = pieces[:-1] if choose.randrange(2) else [*pieces, choose.choice(ODD)]
    return bytes([0xDC, 0, len(pieces)]) + b"".join(pieces)


def file_of(payloads: list[bytes]) -> bytes:
    heads = (struct.pack("<2sII", b"\xc0\xc5", len(raw), zlib.crc32(raw, SALT)) for raw in payloads)
    return b"COXLOG\x01\x00" + b"".join(head + raw for head, raw in zip(heads, payloads, strict=True))


def folded_content(folded: list[bytes]) -> hdf5.StoreFile:
    content = hdf5.StoreFile()
    if folded:
        snapshot.replay(content, [journal.parse(file_of(folded), PATH, "main", SALT)])
    return content


def told(now: snapshot.Snapshot) -> Any:
    """All that a snapshot says, in a form in which equal means the same bits."""
    tables = {}
    for name, table in now.tables.items():
        cells: dict[str, Any] = {}
        for column in table.schema:
            values, missing = table.column(column)
            raw = values.tolist() if values.dtype == object else (values.dtype.str, values.tobytes())
            cells[column.name] = (raw, None if missing is None else missing.tolist())
        tables[name] = (table.schema.to_json(), table.nrows, list(cells.items()))
    content = now.content
    logs = [(log.torn, log.damage, log.size, log.first_seq, log.is_empty) for log in now.journals]
    return list(tables.items()), content.nrows, content.writers, now.damage, logs


def check_both_ways(folded: list[bytes], data: bytes) -> bool:
    """Replay a journal both ways. Returns whether the fast one went through."""
    content = folded_content(folded)
    slow = journal.parse(data, PATH, "main", SALT)
    fast = journal.parse(data, PATH, "main", SALT, read_rows=columnar.read)
    want = told(snapshot.replay(copy.deepcopy(content), [slow]))
    with pytest.MonkeyPatch.context() as patch:
        calls = counted(patch, replay.Replay, "_apply_records")
        assert told(snapshot.replay(copy.deepcopy(content), [fast])) == want
    for rows, tables in ((False, None), (True, ["t"])):
        some = told(snapshot.replay(copy.deepcopy(content), [slow], rows=rows, tables=tables))
        assert told(snapshot.replay(copy.deepcopy(content), [fast], rows=rows, tables=tables)) == some
    assert repr(fast.records) == repr(slow.records)
    return not calls


def counted(patch: pytest.MonkeyPatch, owner: Any, name: str) -> list[str]:
    """Gets longer with each call of a method."""
    calls: list[str] = []
    original = getattr(owner, name)

    def call(*args: Any) -> Any:
        calls.append(name)
        return original(*args)

    patch.setattr(owner, name, call)
    return calls


@pytest.fixture(autouse=True, scope="module")
def however_short() -> Any:
    """As if it always paid off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columnar, "WORTH_IT", 0)
        patch.setattr(columnar, "FEW", 2)
        patch.setattr(columnar, "_AT_ONCE", 3)
        patch.setattr(columnar, "_SLAB", 50)
        yield


@settings(max_examples=EXAMPLES, deadline=None)
@given(runs(odd=False))
def test_a_journal_as_its_writer_wrote_it_is_read_by_columns(run: tuple[list[bytes], list[bytes]]) -> None:
    folded, payloads = run
    assert check_both_ways(folded, file_of(payloads))


@settings(max_examples=EXAMPLES, deadline=None)
@given(runs(odd=True))
def test_what_no_writer_writes_is_told_the_same_way(run: tuple[list[bytes], list[bytes]]) -> None:
    folded, payloads = run
    check_both_ways(folded, file_of(payloads))


@settings(max_examples=EXAMPLES, deadline=None)
@given(runs(odd=False), st.data())
def test_damaged_bytes_are_told_the_same_way(
    run: tuple[list[bytes], list[bytes]], data: st.DataObject
) -> None:
    folded, payloads = run
    broken = bytearray(file_of(payloads))
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(broken) - 1))
        if at not in (6, 7):  # another version
            broken[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, 100))
    check_both_ways(folded, bytes(broken[: max(8, len(broken) - cut)]))


# --- Rows of which one is odd, by hand: what chance would seldom find

GOOD = {"float": 0.5, "int": 7, "bool": True, "str": "ab", "object": "ab"}
RAW = [
    *ODD,
    b"",
    b"\x07\x07",
    b"\xa5ab",
    b"\xa2\xff\xff",
    b"\xa2a\0",
    b"\xa2\0a",
    b"\xcf\x7f" + b"\xff" * 7,
    b"\xd3\x80" + b"\0" * 7,
]


def rows_of(kind: str, cells: list[bytes], odd: dict[tuple[int, int], bytes] | None = None) -> bytes:
    """The journal of a table of one column. Some rows begin with something odd."""
    payloads = [msgspec.msgpack.encode([1, seq, 0, "t", [["a", kind, True]]]) for seq in range(2)]
    for number, cell in enumerate(cells):
        head = [b"\x95", *(msgspec.msgpack.encode(part) for part in (0, 2 + number, 0, number))]
        head = [(odd or {}).get((number, at), part) for at, part in enumerate(head)]
        payloads.append(b"".join(head) + cell)
    return file_of(payloads)


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_an_odd_cell_among_alike_rows_is_told_the_same_way(kind: str) -> None:
    good = msgspec.msgpack.encode(GOOD[kind])
    for raw in [*RAW, *(msgspec.msgpack.encode(value) for values in VALUES.values() for value in values)]:
        for cells in ([good] * 3 + [raw] + [good] * 2, [raw] * 5, [raw, raw, good, good, raw]):
            check_both_ways([], rows_of(kind, cells))


def test_halves_of_a_character_in_two_texts_make_none() -> None:
    check_both_ways([], rows_of("str", [b"\xa1a", b"\xa1\xc3", b"\xa1\xa9", b"\xa1a"]))


def test_texts_of_other_lengths_in_records_of_one_length_are_told_the_same_way() -> None:
    check_both_ways([], rows_of("str", [b"\xd9\x02ab", b"\xd9\x02ab", b"\xd9\x01ab"]))


@pytest.mark.parametrize("rows", [[3], [2, 3], range(5)], ids=repr)
def test_more_cells_than_columns_are_told_the_same_way(rows: Iterable[int]) -> None:
    cells = [b"\x07\x08" if number in rows else b"\x07" for number in range(5)]
    check_both_ways([], rows_of("int", cells, {(row, 0): b"\x96" for row in rows}))


def test_an_int_beyond_all_columns_among_others_of_its_width_is_told_the_same_way() -> None:
    small, large = b"\xcf\x7f" + b"\xff" * 7, b"\xcf\x80" + b"\0" * 7
    for cells in ([small, small, large, small], [large, small, small]):
        check_both_ways([], rows_of("int", cells))


@pytest.mark.parametrize("place", range(5))
def test_an_odd_beginning_among_alike_rows_is_told_the_same_way(place: int) -> None:
    raws = [msgspec.msgpack.encode(number) for number in (0, 1, 2, 3, 4, 5, 6, 7, 9, 127, -1, -2)]
    raws += [b"\xcd\0\1", b"\xcd\0\0", b"\xcc\0", b"\xcc\1", b"\xd0\0", b"\xc2", b"\xc3", b"\xa1a"]
    raws += [b"\x94", b"\x96", b"\x85", b"\xa5"]
    for raw in raws:
        for rows in ([3], [5], [4, 5], range(6)):
            check_both_ways([], rows_of("int", [b"\x07"] * 6, {(row, place): raw for row in rows}))


def test_tables_whose_rows_are_alike_are_kept_apart() -> None:
    tables = [
        [1, 2 * at + twice, at, name, [["a", "int", True]]]
        for at, name in enumerate("tu")
        for twice in (0, 1)
    ]
    rows = [[0, 4 + at, at % 2, at // 2, at] for at in range(20)]
    assert check_both_ways([], file_of([msgspec.msgpack.encode(record) for record in tables + rows]))
