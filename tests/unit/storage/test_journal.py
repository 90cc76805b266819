"""The journal by itself: what is written, what is read back, and what is made of bytes that nobody wrote."""

from __future__ import annotations

import errno
import os
import random
import struct
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cox
from cox.errors import DamagedError, FormatVersionError
from cox.schema import Schema
from cox.storage import fs, hdf5, journal, layout, runinfo, snapshot
from cox.storage.journal import reading
from cox.storage.journal.writing import JournalWriter

RUN_ID = "0123456789abcdef" * 2

SALT = 0x1234ABCD
SCHEMA = Schema.declare({"step": int, "text": str}, table="t")


@dataclass
class Rows:
    """A table, as far as a journal counts its rows."""

    nrows: int = 0


def record(payload: Any, salt: int = SALT) -> bytes:
    """A record of these fields, or of these bytes, made by the description in docs/FORMAT.md."""
    raw = payload if isinstance(payload, bytes) else msgspec.msgpack.encode(payload)
    return b"\xc0\xc5" + struct.pack("<II", len(raw), zlib.crc32(raw, salt)) + raw


def file_of(*payloads: Any, salt: int = SALT) -> bytes:
    return b"COXLOG\x01\x00" + b"".join(record(payload, salt) for payload in payloads)


def parse(data: bytes, salt: int = SALT) -> journal.Journal:
    return journal.parse(data, Path("main-1234abcd.log"), "main", salt)


@pytest.fixture
def run(tmp_path: Path) -> layout.RunLayout:
    return layout.RunLayout(tmp_path)


def write_some(run: layout.RunLayout, *, rows: int = 3, text: str = "é") -> JournalWriter:
    log = JournalWriter(run, "main", 0, run_id=RUN_ID, sync=False)
    log.append_table(0, "t", SCHEMA, (0, text), Rows(0))
    for row in range(1, rows):
        log.append_row(0, (row, text), Rows(row))
    return log


def read_one(run: layout.RunLayout) -> journal.Journal:
    (found,) = journal.read_journals(run.journal_dir)
    return found


# --- The format


def test_the_bytes_are_those_of_the_description(run: layout.RunLayout) -> None:
    log = write_some(run, rows=2)
    assert log.path is not None
    parsed = layout.parse_journal_name(log.path.name)
    assert parsed is not None
    writer, salt = parsed
    assert writer == "main"
    declared = [0, "t", [["step", "int", False], ["text", "str", False]]]
    header = record({"run": RUN_ID, "after": []}, salt=salt)
    records = file_of(
        [1, 0, *declared], [1, 1, *declared], [0, 2, 0, 0, 0, "é"], [0, 3, 0, 1, 1, "é"], salt=salt
    )[8:]
    assert log.path.read_bytes() == b"COXLOG\x02\0" + header + records
    log.close()


def test_what_was_written_is_read_back(run: layout.RunLayout) -> None:
    log = write_some(run)
    log.append_rewind("t", 1, Rows())
    found = read_one(run)
    assert [r[:2] for r in found.records[:5]] == [[1, 0], [1, 1], [0, 2], [0, 3], [0, 4]]
    assert found.records[5][0] == 2
    assert found.records[5][2:] == ["t", 1]
    assert (found.torn, found.damage) == (0, [])
    assert found.size == log.size
    log.close()


def test_sequence_numbers_go_on_in_the_next_file(run: layout.RunLayout) -> None:
    log = write_some(run)
    following = log.next_seq
    log.close()
    log.append_table(1, "t", SCHEMA, (3, ""), Rows(3))
    first, second = journal.read_journals(run.journal_dir)
    assert [r[1] for r in first.records + second.records] == list(range(following + 3))
    log.close()


def test_every_journal_has_its_own_salt(run: layout.RunLayout) -> None:
    names = set()
    for _ in range(20):
        log = write_some(run)
        assert log.path is not None
        names.add(log.path.name)
        log.close()
    assert len(names) == 20


def test_journals_come_in_the_order_of_writers_and_sequence_numbers(tmp_path: Path) -> None:
    for name, first in (
        ("rank-1-00000001", 9),
        ("main-00000002", 7),
        ("main-00000003", 5),
        ("rank-1-00000004", 2),
    ):
        salt = int(name[-8:], 16)
        (tmp_path / f"{name}.log").write_bytes(file_of([2, first, "t", 0], salt=salt))
    found = [(log.writer, log.records[0][1]) for log in journal.read_journals(tmp_path)]
    assert found == [("main", 5), ("main", 7), ("rank-1", 2), ("rank-1", 9)]


def test_only_journals_are_read(tmp_path: Path) -> None:
    for name in (
        "main-1234abcd.damaged",
        ".tmp-1",
        "main.log",
        "main-1234ABCD.log",
        "rank--1-1234abcd.log",
        "x",
    ):
        (tmp_path / name).write_bytes(b"whatever")
    assert journal.read_journals(tmp_path) == []
    assert journal.read_journals(tmp_path / "missing") == []
    assert journal.read_journals(tmp_path / "x") == []


def test_a_row_is_one_write(run: layout.RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write_some(run)
    written: list[tuple[bytes, int]] = []
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, at: (written.append((data, at)), real(fd, data, at))[1]
    )
    before = log.size
    log.append_row(0, (3, "x" * 100_000), Rows(3))
    assert [(len(data), at) for data, at in written] == [(log.size - before, before)]
    written.clear()
    log.append_table(1, "u", SCHEMA, (0, ""), Rows(0))
    assert len(written) == 1, "a declaration and the first row are seen together, or not at all"
    log.close()


def test_sync_row_syncs_every_record_and_the_name(
    run: layout.RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(fs, "sync_data", lambda fd: calls.append("data"))
    monkeypatch.setattr(fs, "sync_directory", lambda path: calls.append(path.name))
    log = JournalWriter(run, "main", 0, run_id=RUN_ID, sync=True)
    log.append_table(0, "t", SCHEMA, (0, ""), Rows(0))
    assert calls[-1] == "data"
    assert layout.JOURNAL_DIR in calls
    calls.clear()
    log.append_row(0, (1, ""), Rows(1))
    log.append_rewind("t", 0, Rows())
    assert calls == ["data", "data"]
    log.close()
    calls.clear()
    lazy = write_some(run)
    assert calls == []
    lazy.sync_from_now_on()
    assert calls[0] == "data"
    assert layout.JOURNAL_DIR in calls
    calls.clear()
    lazy.append_row(0, (1, ""), Rows(1))
    assert calls == ["data"]
    lazy.close()


# --- A write that fails


@pytest.mark.parametrize("done", [0, 1, 5, 12, 30])
def test_a_write_that_fails_leaves_nothing(
    run: layout.RunLayout, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    log = write_some(run)
    before = read_one(run)
    real = os.pwrite
    left = [done]

    def full(fd: int, data: bytes, at: int) -> int:
        if not left[0]:
            raise OSError(28, os.strerror(28))
        written = real(fd, data[: left[0]], at)
        left[0] = 0
        return written

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        log.append_row(0, (3, "a text of some length, so that there are bytes to lose"), Rows(3))
    assert log.path is not None
    assert log.path.stat().st_size == log.size == before.size
    monkeypatch.undo()
    log.append_row(0, (3, "short"), Rows(3))
    after = read_one(run)
    assert after.records == [*before.records, [0, 5, 0, 3, 3, "short"]]
    assert (after.torn, after.damage) == (0, [])
    log.close()


def test_what_cannot_be_cut_off_at_once_is_cut_off_before_the_next_record(
    run: layout.RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_some(run)
    before = read_one(run)

    def broken(*_: object) -> None:
        raise OSError(5, os.strerror(5))

    # the record is whole, and then it is said to have failed: nothing but cutting it off takes it back
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs, "sync_data", broken)
        patch.setattr(fs, "truncate", broken)
        log.synced = True
        with pytest.raises(OSError, match="Input/output"):
            log.append_table(7, "phantom", SCHEMA, (0, "never acknowledged"), Rows(0))
        with pytest.raises(OSError, match="Input/output"):
            log.append_row(0, (3, "neither, for the phantom would follow it"), Rows(3))
    log.synced = False
    log.append_rewind("t", 3, Rows())
    log.append_row(0, (3, ""), Rows(3))
    after = read_one(run)
    assert after.damage == []
    assert after.torn == 0
    assert after.records[: len(before.records)] == before.records
    assert {r[0] for r in after.records[len(before.records) :]} == {journal.REWIND, journal.ROW}
    log.close()


def test_a_journal_that_cannot_begin_leaves_no_file(
    run: layout.RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "pwrite", full)
    log = JournalWriter(run, "main", 0, run_id=RUN_ID, sync=False)
    with pytest.raises(OSError, match="No space"):
        log.append_table(0, "t", SCHEMA, (0, ""), Rows(0))
    assert list(run.journal_dir.iterdir()) == []
    monkeypatch.undo()
    log.append_table(0, "t", SCHEMA, (0, ""), Rows(0))
    assert len(read_one(run).records) == 3
    log.close()


# --- Damage


def test_a_torn_tail_is_not_there_yet() -> None:
    data = file_of([2, 0, "t", 0], [2, 1, "t", 0])
    for cut in range(1, len(record([2, 1, "t", 0]))):
        found = parse(data[:-cut])
        assert [r[1] for r in found.records] == [0]
        assert found.torn == len(record([2, 1, "t", 0])) - cut
        assert found.damage == []


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_its_header_is_unfinished(size: int) -> None:
    found = parse(b"COXLOG\x01\x00"[:size])
    assert (found.records, found.damage, found.torn) == ([], [], size)


def test_a_damaged_last_record_is_damage_and_no_torn_tail() -> None:
    data = bytearray(file_of([2, 0, "t", 0], [2, 1, "t", 0]))
    data[-1] ^= 1
    found = parse(bytes(data))
    assert [r[1] for r in found.records] == [0]
    assert found.torn == 0
    (said,) = found.damage
    assert str(len(record([2, 1, "t", 0]))) in said


def test_a_tail_of_zeros_is_a_torn_one() -> None:
    """After a power failure a file may have its length before it has its bytes."""
    found = parse(file_of([2, 0, "t", 0]) + bytes(100))
    assert ([r[1] for r in found.records], found.torn, found.damage) == ([0], 100, [])


def test_a_damaged_header_costs_no_record() -> None:
    data = b"coxlog\x01\x00" + file_of([2, 0, "t", 0])[8:]
    found = parse(data)
    assert len(found.records) == 1
    assert found.damage == ["its header is damaged"]


def test_a_newer_version_is_refused_by_name() -> None:
    data = b"COXLOG" + struct.pack("<H", journal.VERSION + 1) + record([9, 0, "unknown"])
    with pytest.raises(FormatVersionError, match=r"main-1234abcd\.log .* version 3; .* up to 2: upgrade cox"):
        parse(data)


def test_every_place_of_a_run_knows_its_id(tmp_path: Path) -> None:
    run = layout.RunLayout(tmp_path / "run")
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"step": int})
        store["t"].append_row({"step": 0})
        known = store._writer.run_id  # type: ignore[union-attr]
        assert len(bytes.fromhex(known)) == 16
        run.run_file.unlink()
        assert runinfo.run_id(run) == known, "of the journal"
        assert snapshot.read(run).run_id == known
    run.run_file.unlink()
    assert not list(run.journal_dir.glob("*.log"))
    assert runinfo.run_id(run) == known, "of the store file"
    with cox.Store(tmp_path, "run"):
        pass
    assert runinfo.id_of(runinfo.read(run)) == known
    with cox.Store(tmp_path, "other"):
        assert runinfo.run_id(layout.RunLayout(tmp_path / "other")) not in (known, None)


def test_a_record_with_another_salt_is_none() -> None:
    found = parse(file_of([2, 0, "t", 0], salt=SALT + 1))
    assert found.records == []
    assert found.damage


def test_a_journal_logged_as_text_into_another_never_counts_as_records(run: layout.RunLayout) -> None:
    log = write_some(run)
    assert log.path is not None
    inner = log.path.read_bytes()
    log.close()
    for path in list(run.journal_dir.glob("*.log")):
        path.unlink()
    # somebody logs the file, as the text that it looks like; and then the row that holds it is damaged
    text = inner.decode("latin-1").encode("latin-1")
    outer = JournalWriter(run, "main", 0, run_id=RUN_ID, sync=False)
    outer.append_table(0, "t", SCHEMA, (0, "before"), Rows(0))
    assert outer.path is not None
    start = outer.size
    parsed = layout.parse_journal_name(outer.path.name)
    assert parsed is not None
    raw = msgspec.msgpack.encode([0, 3, 0, 1, 1, text])  # bytes as they are, the worst that text can be
    os.pwrite(outer.fd, record(raw, parsed[1]), start)
    outer.size, outer.next_seq = start + len(record(raw)), 4
    outer.append_row(0, (2, "after"), Rows(2))
    data = bytearray(outer.path.read_bytes())
    outer.close()
    assert inner in data
    for at in (start, start + 3, start + 7, start + 12):
        broken = bytearray(data)
        broken[at] ^= 0x10
        found = journal.parse(bytes(broken), outer.path, *parsed)
        assert [r[1] for r in found.records] == [0, 1, 2, 4]
        assert len(found.damage) == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_bytes_are_only_records_come_out(data: st.DataObject) -> None:
    """Pieces of real records, put together at random: each record that comes out was written."""
    good = [[2, number, "t", number] for number in range(6)] + [[0, 7, 0, 1, "x\u00c0\u00c5" * 5]]
    pieces = [record(payload) for payload in good]
    mixed = b"COXLOG\x01\x00" + b"".join(
        piece[data.draw(st.integers(0, 3)) : len(piece) - data.draw(st.integers(0, 3))]
        + data.draw(st.binary(max_size=4))
        for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=12))
    )
    found = parse(mixed)
    assert all(r in good for r in found.records)
    covered = sum(len(record(r)) for r in found.records) + found.torn
    assert bool(found.damage) == (covered < len(mixed) - 8)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_file_is_read_to_its_end_without_another_error(noise: bytes) -> None:
    for data in (
        noise,
        b"COXLOG\x01\x00" + noise,
        b"COXLOG\x01\x00" + record(noise) + record([2, 1, "t", 0]),
    ):
        try:
            found = parse(data)
        except FormatVersionError:
            continue
        assert all(type(r) is list for r in found.records)


# --- Files made by somebody else

NONSENSE = [
    b"",
    b"\xc1",
    b"\x90",
    b"\x91" * 100_000,
    b"\xdd\xff\xff\xff\xff",
    {"a": 1},
    [0],
    ["x", "y"],
    [0, "y"],
    [None, None],
    [0, 1.5, 0, 0],
    [True, True],
    [[], []],
    [1, 0],
    [1, 0, 0],
    [1, 0, 0, "t", [["a", "int"]]],
    [1, 0, 0, "t", [["a", "no kind", False]]],
    [1, 0, 0, "t", 5],
    [1, 0, 0, "../../outside", [["a", "int", False]]],
    [1, 0, 0, "", [["a", "int", False]]],
    [1, 0, [], "t", [["a", "int", False]]],
    [2, 0, "t", float("inf")],
    [2, 0, "t", float("nan")],
    [2, 0, "t", -5],
    [2, 0, ["t"], 1],
    [0, 0, 5, 0, 1],
    [0, 0, {}, 0, 1],
    [0, 0, 0, "x", 1],
    [99, 0, "a kind of the future"],
]


@pytest.mark.parametrize("payload", NONSENSE, ids=lambda p: repr(p)[:30])
def test_a_record_that_makes_no_sense_costs_only_itself(tmp_path: Path, payload: Any) -> None:
    """Whoever makes a file can make its checksums, too."""
    run = layout.RunLayout(tmp_path)
    run.journal_dir.mkdir(parents=True)
    declaration = [1, 1, 0, "good", [["a", "int", False]]]
    run.journal_file("main", SALT).write_bytes(
        file_of(payload, declaration, [0, 2, 0, 0, 7], [0, 3, 0, 1, 8])
    )
    now = snapshot.read(run)
    assert now.damage
    assert all("main-1234abcd.log" in said for said in now.damage)
    table = now.tables["good"]
    assert table.column(table.schema.columns[0])[0].tolist() == [7, 8]


@pytest.mark.parametrize("cell", ["text", 2**63, 1.5, None, [1], {"a": 1}, b"x", True], ids=repr)
def test_a_cell_of_another_type_costs_its_row(tmp_path: Path, cell: Any) -> None:
    run = layout.RunLayout(tmp_path)
    run.journal_dir.mkdir(parents=True)
    declaration = [1, 0, 0, "t", [["a", "int", False]]]
    run.journal_file("main", SALT).write_bytes(
        file_of(declaration, [0, 1, 0, 0, 7], [0, 2, 0, 1, cell], [0, 3, 0, 2, 9])
    )
    now = snapshot.read(run)
    values, missing = now.tables["t"].column(now.tables["t"].schema.columns[0])
    if cell is None:  # a missing cell, which is what nil means
        assert missing is not None
        assert missing.tolist() == [False, True, False]
    else:
        assert values.tolist() == [7, 9]
        assert now.content.nrows["t"] == 2
        assert any("column 'a'" in said for said in now.damage)


def test_two_ranks_that_disagree_about_a_column_lose_no_row(tmp_path: Path) -> None:
    run = layout.RunLayout(tmp_path)
    run.journal_dir.mkdir(parents=True)
    for rank, (kind, cell) in enumerate([("int", 7), ("str", "x"), ("float", 0.5)]):
        declaration = [1, 0, 0, "t", [["a", kind, False], ["rank", "int", True]]]
        path = run.journal_file(f"rank-{rank}", SALT)
        path.write_bytes(file_of(declaration, [0, 1, 0, 0, cell, rank]))
    now = snapshot.read(run)
    assert now.damage == []
    assert now.tables["t"].column(now.tables["t"].schema.columns[0])[0].tolist() == ["7", "x", "0.5"]


class CountingCrc:
    """Counts the bytes that are checksummed."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, data: Any, start: int = 0) -> int:
        self.bytes += len(data)
        return zlib.crc32(data, start)


def hostile_files() -> dict[str, bytes]:
    """Files in which every place looks like a record that is as long as can be."""
    header, size = b"COXLOG\x01\x00", 60_000
    marks = b"\xc0\xc5" * (size // 2)
    long = b"".join(b"\xc0\xc5" + struct.pack("<II", size - at - 10, 0) for at in range(0, size, 10))
    half = b"".join(b"\xc0\xc5" + struct.pack("<II", (size - at) // 2, 0) for at in range(0, size, 10))
    zeros = (b"\xc0\xc5" + struct.pack("<II", 0, 1)) * (size // 10)
    noise = random.Random(1).randbytes(size)
    return {
        name: header + body for name, body in locals().items() if isinstance(body, bytes) and name != "header"
    }


@pytest.mark.parametrize("name", sorted(hostile_files()))
def test_no_file_is_checksummed_more_often_than_the_budget_says(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = hostile_files()[name]
    counting = CountingCrc()
    monkeypatch.setattr(reading, "_crc32", counting)
    began = time.process_time()
    found = parse(data)
    assert counting.bytes <= (reading._RESYNC_BUDGET + 3) * len(data)
    assert time.process_time() - began < 20, "and it does not take long either"
    assert found.records == []
    if name != "marks":  # that one looks like a record of gigabytes that has just begun
        assert found.damage, "giving up is damage, and no unfinished record"


def test_ten_thousand_damaged_places_are_all_passed() -> None:
    good = b"".join(record([2, number, "t", 0]) + b"\xff" for number in range(10_000))
    found = parse(b"COXLOG\x01\x00" + good)
    assert len(found.records) == 10_000
    assert len(found.damage) >= 9_999


def test_reading_needs_no_more_memory_than_a_few_times_the_file(tmp_path: Path) -> None:
    import tracemalloc

    data = file_of(*([0, number, 0, number, "x" * 1000] for number in range(1000)))
    (tmp_path / "main-1234abcd.log").write_bytes(data)
    tracemalloc.start()
    try:
        assert len(journal.read_journals(tmp_path)[0].records) == 1000
        assert tracemalloc.get_traced_memory()[1] < 5 * len(data)
    finally:
        tracemalloc.stop()


# --- What the snapshot makes of several journals


def read_column(run: layout.RunLayout) -> list[Any]:
    table = snapshot.read(run).tables["t"]
    return table.column(table.schema.columns[0])[0].tolist()  # type: ignore[no-any-return]


DECLARED = [["a", "int", False]]


def test_a_lost_rewind_shows_by_the_numbers_of_the_rows_after_it(tmp_path: Path) -> None:
    run = layout.RunLayout(tmp_path)
    run.journal_dir.mkdir(parents=True)
    rows = [[0, 1 + number, 0, number, number] for number in range(4)]
    later = [[0, 7 + number, 0, 2 + number, 20 + number] for number in range(2)]
    run.journal_file("main", SALT).write_bytes(file_of([1, 0, 0, "t", DECLARED], *rows, *later))
    assert read_column(run) == [0, 1, 20, 21]
    assert any("2 records are lost" in said for said in snapshot.read(run).damage)


def test_records_that_the_store_file_has_are_skipped(tmp_path: Path) -> None:
    from cox.storage import fold

    run = layout.RunLayout(tmp_path)
    run.journal_dir.mkdir(parents=True)
    path = run.journal_file("main", SALT)
    data = file_of([1, 0, 0, "t", DECLARED], *([0, 1 + n, 0, n, n] for n in range(3)))
    path.write_bytes(data)
    fold.fold(run, own=JournalWriter(run, "main", 0, run_id=RUN_ID, sync=False))
    assert not path.exists()
    path.write_bytes(data)  # as if the process had died before it removed it
    assert read_column(run) == [0, 1, 2]
    path.write_bytes(data + record([0, 4, 0, 3, 3]))
    assert read_column(run) == [0, 1, 2, 3]
    fold.fold(run, own=JournalWriter(run, "main", 0, run_id=RUN_ID, sync=False))
    assert read_column(run) == [0, 1, 2, 3]


def test_rows_that_were_lost_do_not_count(tmp_path: Path) -> None:
    """Were they counted, a rewind would keep as many of the rows behind them."""
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"step": int})
        for step in range(10):
            table.append_row({"step": step})
        (path,) = layout.RunLayout(tmp_path / "run").journal_dir.glob("*.log")
        data = bytearray(path.read_bytes())
        rows = [at for at in range(len(data)) if data[at : at + 2] == journal.MARK]
        for row in (3, 4):
            data[rows[3 + row] + 11] ^= 1  # the header's record and two declarations come first
        path.write_bytes(data)
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        assert table.nrows == 8
        assert table.df["step"].tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
        table.append_row({"step": 10})
    with cox.Store(tmp_path, "run") as store:
        assert store["t"].nrows == 9
        store.rewind("t", 5, purge_tensorboard=False)
        assert store["t"].df["step"].tolist() == [0, 1, 2, 5, 6]
        store["t"].append_row({"step": 7})
    with cox.Store(tmp_path, "run", mode="r") as store:
        assert store["t"].nrows == 6
        assert store["t"].df["step"].tolist() == [0, 1, 2, 5, 6, 7]


@pytest.mark.parametrize(
    "error", [DamagedError("stale"), OSError(errno.ESTALE, "stale")], ids=["damaged", "stale"]
)
def test_a_store_file_that_is_replaced_while_it_is_read_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """On a network file system the replaced file cannot be read to its end."""
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"step": int}).append_row({"step": 0})
    read, calls = hdf5.read, 0

    def read_half(path: Path, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            with cox.Store(tmp_path, "run") as store:
                store["t"].append_row({"step": 1})
                monkeypatch.setattr(hdf5, "read", read)
            monkeypatch.setattr(hdf5, "read", read_half)
            raise error
        return read(path, **options)

    reader = cox.Store(tmp_path, "run", mode="r")
    monkeypatch.setattr(hdf5, "read", read_half)
    assert reader["t"].df["step"].tolist() == [0, 1]


def test_a_store_file_that_cannot_be_read_is_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cox.Store(tmp_path, "run").close()
    path = tmp_path / "run" / "store.h5"
    path.write_bytes(b"no store")
    with pytest.raises(DamagedError):
        snapshot.read(layout.RunLayout(tmp_path / "run"))
    turns = iter(range(1000))
    monkeypatch.setattr(fs, "identity", lambda path: (next(turns), 0, 0))
    with pytest.raises(DamagedError):
        snapshot.read(layout.RunLayout(tmp_path / "run"))


def test_a_file_that_has_lost_its_name_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"new")
    stale = iter([OSError(errno.ESTALE, "stale")] * 3)
    read = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        for error in stale:
            raise error
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert fs.read_bytes(path) == b"new"
