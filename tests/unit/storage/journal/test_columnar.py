"""Long journals by columns: what is read so, what is not, and what it takes. See also the property tests."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.storage import hdf5, journal, layout, replay, snapshot
from cox.storage.journal import columnar, format, reading

HEADER = 64  # bytes
ROWS = 12_000  # more than are checksummed at once

Live = tuple[bytes, Path, int]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The journal of a run that is being written, with two tables in turns: its bytes, path and salt."""
    folder = tmp_path_factory.mktemp("live")
    with cox.Store(folder, "run") as store:
        train = store.add_table("train", {"step": int, "loss": float, "phase": str | None, "ok": bool})
        val = store.add_table("val", {"step": int, "note": str})
        for step in range(ROWS):
            phase = ["a", None, "é"][step % 3]
            train.append_row({"step": step - 50, "loss": 1 / (step + 1), "phase": phase, "ok": step % 7 < 3})
            if step % 5 == 0:
                val.append_row({"step": step * 2**40, "note": "x" * (step % 200)})
        store.rewind("val", 100, purge_tensorboard=False)
        (path,) = layout.RunLayout(folder / "run").journal_dir.glob("*.log")
        parsed = layout.parse_journal_name(path.name)
        assert parsed is not None
        return path.read_bytes(), path, parsed[1]


def parse(live: Live, data: bytes, *, fast: bool) -> journal.Journal:
    return journal.parse(data, live[1], "main", live[2], read_rows=columnar.read if fast else None)


def told(log: journal.Journal) -> Any:
    now = snapshot.replay(hdf5.StoreFile(), [log])
    cells = {
        (name, column.name): [None if array is None else array.tolist() for array in table.column(column)]
        for name, table in now.tables.items()
        for column in table.schema
    }
    return cells, now.content.nrows, now.content.writers, now.damage, log.torn


def test_a_long_journal_is_read_by_columns_and_tells_the_same(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = told(parse(live, live[0], fast=False))
    assert want[1] == {"train": ROWS, "val": 100}
    counting = Counting(format.decode)
    monkeypatch.setattr(format, "decode", counting)
    monkeypatch.setattr(reading, "decode", counting)
    monkeypatch.setattr(replay.Replay, "_apply_records", None)
    assert told(parse(live, live[0], fast=True)) == want
    assert counting.calls < ROWS / 20, "hardly a record by itself"


class Counting:
    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.function(*args)


def test_a_short_journal_is_not(live: Live) -> None:
    short = live[0][: columnar.WORTH_IT - 1]
    assert parse(live, short, fast=True).rows is None
    assert parse(live, live[0][: columnar.WORTH_IT], fast=True).rows is not None


def test_an_unfinished_record_at_the_end_is_no_hindrance(live: Live) -> None:
    for length in range(columnar.WORTH_IT, columnar.WORTH_IT + 120):
        log = parse(live, live[0][:length], fast=True)
        assert log.rows is not None
        assert log.torn == parse(live, live[0][:length], fast=False).torn
        assert (
            length - log.torn
            == sum(len(log.rows.payloads[at]) + 10 for at in range(len(log.rows.seq))) + HEADER
        )


def test_a_flipped_bit_anywhere_is_seen(live: Live) -> None:
    """In whichever record of those that are checksummed together it is."""
    choose = random.Random(1)
    end = columnar.WORTH_IT * 2
    for at in [choose.randrange(8, end) for _ in range(150)]:
        broken = bytearray(live[0][:end])
        broken[at] ^= 1 << choose.randrange(8)
        fast, slow = (parse(live, bytes(broken), fast=fast) for fast in (True, False))
        assert fast.rows is None or slow.torn > 0
        assert (fast.damage, fast.torn, fast.records) == (slow.damage, slow.torn, slow.records)


@pytest.mark.parametrize("part", range(10))
def test_a_flipped_bit_is_seen_among_very_many_records(live: Live, part: int) -> None:
    data = bytearray(live[0])
    data[len(data) * part // 10 + 30] ^= 4
    assert parse(live, bytes(data), fast=True).rows is None


def test_it_takes_a_few_times_the_memory_of_the_file(live: Live) -> None:
    tracemalloc.start()
    try:
        told_by = snapshot.replay(hdf5.StoreFile(), [parse(live, live[0], fast=True)])
        assert tracemalloc.get_traced_memory()[1] < 6 * len(live[0])
    finally:
        tracemalloc.stop()
    assert told_by.content.nrows["train"] == ROWS


def test_one_long_text_does_not_pad_all_others(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"text": str})
        for step in range(2000):
            table.append_row({"text": "x" * (100_000 if step == 1000 else step % 3)})
        now = snapshot.read(layout.RunLayout(tmp_path / "run"))
    assert now.journals[0].rows is not None
    (part,) = now.tables["t"].parts
    assert part.values["text"].nbytes < 100_000
    assert [len(text) for text in part.values["text"][999:1002]] == [0, 100_000, 2]
