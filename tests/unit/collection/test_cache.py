"""The cache of a folder: what is found again, what is read anew, what is kept of it, and what goes."""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cox
from cox.collection import blocks, cache
from cox.collection.blocks import Block, batched, joined
from cox.collection.cache import Cache, Fresh, files, index, place, saving
from cox.collection.cache.index import Entry, Index
from cox.schema import Schema
from cox.storage import fs, layout, scan
from cox.storage.columns import Part, values_of
from cox.storage.scan import State
from tests.caching import assert_same, count_reads, df, kept_at_once, make, segments_of, settle

X = Schema.declare({"x": int}, table="t")
XS = Schema.declare({"x": int, "s": str}, table="t")
OLD = State(1, 2, 3, 4, 5, ())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_at_once(monkeypatch)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return count_reads(monkeypatch)


def numbers(*values: int) -> Part:
    return Part(len(values), {"x": np.array(values, dtype=np.int64)})


def fresh(states: dict[str, State], rows: dict[str, list[int]]) -> Fresh:
    """What a reader brings that read these runs, each with a table `t` of one column."""
    parts = [
        Block(X, numbers(*rows[name]), [name], np.array([len(rows[name])])) for name in rows if rows[name]
    ]
    return Fresh(
        states,
        {name: {"t": X} for name in states},
        {name: {"t": len(rows[name])} for name in states},
        [("t", joined(parts, X))] if parts else [],
    )


def rows_of(found: list[Block] | None) -> dict[str, list[int]]:
    """The rows by run, in the order of the blocks."""
    made = {}
    for block in found or ():
        stops = np.cumsum(block.lengths)
        for name, start, stop in zip(block.names, stops - block.lengths, stops, strict=True):
            made[name] = block.part.values["x"][start:stop].tolist()
    return made


def as_runs(folder: Path, *names: str) -> None:
    """Directories that are there, so that runs of these names are not forgotten."""
    for name in names:
        (folder / name).mkdir(exist_ok=True)


# --- The index


def test_an_index_is_found_as_it_was_saved(tmp_path: Path) -> None:
    journals = (("main-00000001.log", (1, 2, 3, 4)), ("rank-0-00000002.log", (5, 6, 7, 8)))
    made = index.nothing()
    made.next_id = 7
    made.stored_heads = [[("never", [("x", "int", False)])], [], [("t", [("x", "int", True)]), ("u", [])]]
    entries = {
        "b é": Entry(3, State(2**63 - 1, -1, -5, 0, 9, journals), 2, [5, 0]),
        "a": Entry(6, OLD, 1, []),
        "c/d": Entry(0, OLD, 2, [2**39, 1]),
    }
    index.save(tmp_path / "index", made, entries)
    found = index.load(tmp_path / "index")
    assert found.entries() == {
        name: Entry(entry.id, entry.state, {1: 0, 2: 1}[entry.head], entry.nrows)  # no head of nobody
        for name, entry in entries.items()
    }
    assert found.next_id == 7
    assert found.names == ["b é", "a", "c/d"]
    assert found.states == {name: entry.state for name, entry in entries.items()}
    assert found.rows_of("t").tolist() == [5, 0, 2**39]
    assert found.rows_of("u").tolist() == [0, 0, 1]
    assert found.rows_of("never").tolist() == [0, 0, 0]
    assert found.heads[1]["t"].to_json() == [["x", "int", True]]


@pytest.mark.parametrize(
    ("name", "state", "can"),
    [
        ("é", OLD, True),
        ("\udcff", OLD, False),
        ("a", OLD._replace(inode=2**63), False),
        ("a", OLD._replace(touched=-(2**63) - 1), False),
        ("a", OLD._replace(journals=(("main-00000001.log", (1, 1, 2**63, 1)),)), False),
    ],
    ids=["text", "bytes", "inode", "time", "journal"],
)
def test_runs_that_an_index_cannot_hold(name: str, state: State, can: bool) -> None:
    assert index.can_hold(name, state) == can


def test_an_index_of_another_version_is_none(tmp_path: Path) -> None:
    make(tmp_path, "a")
    settle(tmp_path)
    df(tmp_path)
    path = tmp_path / layout.CACHE_DIR / files.INDEX_FILE
    data = path.read_bytes()
    assert index.load(path).names == ["a"]
    assert data.startswith(b"coxcache\x02")
    path.write_bytes(b"coxcache\x03" + data[9:])
    assert index.load(path).names == []
    assert_same(tmp_path)
    assert index.load(path).names == ["a"], "and the next reader writes its own"


# --- Where rows are


def with_segments(runs: list[tuple[int, int]], *segments: tuple[str, list[int], list[int]]) -> Index:
    """An index of runs, by number and rows of `t`, and of segments: table, numbers, lengths."""
    made = index.nothing()
    made.names = [f"r{at}" for at in range(len(runs))]
    made.number = {name: at for at, name in enumerate(made.names)}
    made.ids = np.array([number for number, _ in runs], dtype=np.int64)
    made.head = np.zeros(len(runs), dtype=np.int64)
    made.heads = [{"t": X}]
    made.nrows = np.array([nrows for _, nrows in runs], dtype=np.int64)
    for table, ids, lengths in segments:
        size = 8 * sum(lengths)
        blob = index.Blob("x", "<i8", 0, size, 0)
        made.segments.append(
            index.Segment(
                f"{len(made.segments):032x}.rows",
                table,
                [("x", "int", False)],
                index.as_bytes(ids),
                index.as_bytes(lengths),
                [blob],
            )
        )
    return made


def test_place_knows_the_segment_the_start_and_whether_it_is_all() -> None:
    made = with_segments(
        [(5, 2), (3, 4), (9, 0), (1, 6), (4, 1)],
        ("t", [3, 8, 5], [4, 100, 2]),  # 8 is no run's any more
        ("u", [4], [1]),
        ("t", [1], [5]),  # 6 were expected
    )
    found = place(made, "t")
    assert found.segment.tolist() == [0, 0, -1, 2, -1]
    assert found.start.tolist()[:2] == [104, 0]
    assert found.length.tolist() == [2, 4, 0, 5, 0]
    assert found.is_whole.tolist() == [True, True, True, False, False]
    assert place(made, "nowhere").is_whole.all(), "who has no such table has all of its rows"


def test_the_later_segment_counts() -> None:
    made = with_segments([(0, 2), (1, 2)], ("t", [0, 1], [2, 2]), ("t", [1], [2]))
    assert place(made, "t").segment.tolist() == [0, 1]


def test_place_of_no_runs_and_no_segments() -> None:
    assert place(with_segments([]), "t").is_whole.tolist() == []
    assert place(with_segments([(0, 1)]), "t").is_whole.tolist() == [False]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A cache of five runs in three segments, in another order than that of their names."""
    as_runs(tmp_path, *"abcde")
    rows = {"d": [1, 2], "a": [3], "c": [4, 5, 6], "b": [7, 8], "e": []}
    for some in ("da", "c", "be"):
        given = {name: rows[name] for name in some}
        saving.save(tmp_path, fresh(dict.fromkeys(given, OLD), given), took=0)
    assert len(segments_of(tmp_path)) == 3
    return tmp_path


def test_rows_come_in_the_order_that_is_asked_for(three: Path) -> None:
    found = Cache(three)
    assert found.with_rows("t") == set("abcde")
    for names in ("abcde", "edcba", "da", "ad", "cb", "e", "", "b"):
        made = found.blocks("t", list(names), None)
        assert made is not None
        assert list(rows_of(made)) == [name for name in names if name != "e"]
        assert rows_of(made) == {name: ROWS[name] for name in names if name != "e"}


ROWS = {"d": [1, 2], "a": [3], "c": [4, 5, 6], "b": [7, 8]}


def test_neighbours_in_a_segment_come_in_one_block(three: Path) -> None:
    made = Cache(three).blocks("t", ["d", "a", "c"], None)
    assert made is not None
    assert [block.names for block in made] == [["d", "a"], ["c"]]
    assert [block.lengths.tolist() for block in made] == [[2, 1], [3]]


def test_some_of_a_segments_runs(tmp_path: Path) -> None:
    as_runs(tmp_path, *"abcd")
    rows = {"a": [1], "b": [2, 3, 4], "c": [5, 6], "d": [7, 8, 9, 10]}
    saving.save(tmp_path, fresh(dict.fromkeys(rows, OLD), rows), took=0)
    found = Cache(tmp_path)
    for names in ("ab", "bc", "bcd", "ad", "dcba", "c", "abcd", "acd"):
        made = found.blocks("t", list(names), None)
        assert made is not None
        assert rows_of(made) == {name: rows[name] for name in names}
        for block in made:
            assert block.part.nrows == block.lengths.sum() == len(block.part.values["x"])


def test_a_segment_that_cannot_be_read_takes_none_of_the_others_along(three: Path) -> None:
    found = Cache(three)
    for path in segments_of(three):
        if path.stat().st_size == 3 * 8 and found.blocks("t", ["c"], None):
            ids = {segment.file: segment.ids for segment in found.index.segments}
            if ids[path.name] == index.as_bytes([2]):
                path.unlink()
    found = Cache(three)
    assert found.blocks("t", ["a", "c"], None) is None
    assert found.blocks("t", ["c"], None) is None, "never: no rows"
    assert rows_of(found.blocks("t", ["d", "a"], None)) == {"d": [1, 2], "a": [3]}
    assert "c" not in found.with_rows("t")


def test_runs_of_a_lost_segment_are_read_again_each_for_itself(tmp_path: Path, reads: list[str]) -> None:
    """One of them is asked for after a changed run, when the segment is known to be lost already."""
    for name in "abcde":
        make(tmp_path, name)
    settle(tmp_path)
    df(tmp_path)
    (segment,) = segments_of(tmp_path)
    segment.write_bytes(bytes(segment.stat().st_size))
    make(tmp_path, "c", {"x": 9, "s": "new"})
    settle(tmp_path)
    assert len(assert_same(tmp_path)) == 16
    reads.clear()
    assert len(df(tmp_path)) == 16
    assert reads == [], "and then it is whole again"


# --- Blocks


def test_blocks_are_joined_up_to_so_many_runs_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Block(X, numbers(at), [f"r{at}"], np.array([1])) for at in range(10)]
    monkeypatch.setattr(blocks, "RUNS_IN_BLOCK", 4)
    assert [block.names for block in batched(many, X)] == [
        ["r0", "r1", "r2", "r3"],
        ["r4", "r5", "r6", "r7"],
        ["r8", "r9"],
    ]
    monkeypatch.setattr(blocks, "BYTES_IN_BLOCK", 24)
    assert [len(block.names) for block in batched(many, X)] == [3, 3, 3, 1]
    assert [block.part.values["x"].tolist() for block in batched(many, X)][1] == [3, 4, 5]
    assert list(batched([], X)) == []


def test_joined_blocks_keep_what_is_missing() -> None:
    first = Block(XS, Part(1, {"x": np.array([1])}), ["a"], np.array([1]))
    texts = np.array(["u", ""], dtype=object)
    second = Block(
        XS, Part(2, {"x": np.array([2, 3]), "s": texts}, {"s": np.array([False, True])}), ["b"], np.array([2])
    )
    made = joined([first, second], XS)
    assert made.names == ["a", "b"]
    assert made.lengths.tolist() == [1, 2]
    assert made.part.missing["s"].tolist() == [True, False, True]
    assert values_of(made.part, XS.columns[1]).tolist()[1] == "u"


# --- What is found again


def test_a_second_reading_opens_no_run(tmp_path: Path, reads: list[str]) -> None:
    for name in "abc":
        make(tmp_path, name)
    settle(tmp_path)
    first = df(tmp_path)
    assert reads == ["a", "b", "c"]
    reads.clear()
    for options in ({}, {"columns": ["s"]}, {"where": "x > 0"}, {"exp_filter": lambda name: name == "b"}):
        assert_same(tmp_path, **options)
        assert reads.count("a") <= 1, "only without the cache"
        reads.clear()
    pd.testing.assert_frame_equal(df(tmp_path), first)
    with cox.CollectionReader(tmp_path, cache=True) as reader:
        assert reader.tables == {"t"}
    assert reads == []


def test_only_what_changed_is_read(tmp_path: Path, reads: list[str]) -> None:
    for name in "abcdef":
        make(tmp_path, name)
    settle(tmp_path)
    df(tmp_path)
    make(tmp_path, "c", {"x": 7, "s": "more"})
    make(tmp_path, "g")
    settle(tmp_path)
    reads.clear()
    found = df(tmp_path)
    assert reads == ["c", "g"]
    assert found["exp_id"].tolist() == [*"aaabbbccccdddeeefffggg"]
    reads.clear()
    pd.testing.assert_frame_equal(df(tmp_path), found)
    assert reads == []


def test_another_table_is_read_once_and_does_not_cost_the_first(tmp_path: Path, reads: list[str]) -> None:
    for name in "ab":
        make(tmp_path, name)
        make(tmp_path, name, {"y": 1.5}, table="u", y=float)
    settle(tmp_path)
    for _ in range(2):
        for key in ("t", "u", "t"):
            assert_same(tmp_path, key)
    reads.clear()
    assert df(tmp_path)["x"].tolist() == [0, 1, 2] * 2
    assert df(tmp_path, "u")["y"].tolist() == [1.5, 1.5]
    assert reads == []


def test_rows_of_a_journal_are_seen(tmp_path: Path, reads: list[str]) -> None:
    with cox.Store(tmp_path, "live") as store:
        table = store.add_table("t", {"x": int})
        for x in range(4):
            table.append_row({"x": x})
            settle(tmp_path)
            assert df(tmp_path)["x"].tolist() == list(range(x + 1))
            reads.clear()
            assert df(tmp_path)["x"].tolist() == list(range(x + 1))
            assert reads == [], "a live run that rests is not read again"
        store.rewind("t", 1, purge_tensorboard=False)
        assert df(tmp_path)["x"].tolist() == [0]
    assert df(tmp_path)["x"].tolist() == [0]
    with cox.Store(tmp_path, "live") as store:
        settle(tmp_path)
        df(tmp_path)
        store["t"].append_row({"x": 5})
        assert df(tmp_path)["x"].tolist() == [0, 5], "a journal that came since"


# --- The same name, another run


def copy_over(source: Path, target: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def in_place(source: Path, target: Path) -> None:
    """As `cp source/store.h5 target/store.h5` or `rsync --inplace`, with the times set back."""
    times = (target / "store.h5").stat()
    with (target / "store.h5").open("r+b") as file:
        file.write((source / "store.h5").read_bytes())
    os.utime(target / "store.h5", ns=(times.st_atime_ns, times.st_mtime_ns))


def renamed_over(source: Path, target: Path) -> None:
    times = (target / "store.h5").stat()
    shutil.copy(source / "store.h5", target / "new")
    os.utime(target / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (target / "new").rename(target / "store.h5")


@pytest.mark.parametrize("replace", [copy_over, in_place, renamed_over], ids=lambda do: do.__name__)
def test_a_run_replaced_by_one_of_the_same_size_and_time(
    tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    a = make(tmp_path, "a", {"x": 1, "s": "one"})
    for number in range(200):  # the numbers of its journals, which are drawn, may be shorter or longer
        other = make(tmp_path / f"elsewhere{number}", "other", {"x": 2, "s": "two"})
        if (a / "store.h5").stat().st_size == (other / "store.h5").stat().st_size:
            break
    assert (a / "store.h5").stat().st_size == (other / "store.h5").stat().st_size
    for path in other.rglob("*"):
        if path.is_file():
            os.utime(path, ns=((a / "store.h5").stat().st_mtime_ns,) * 2)
    settle(tmp_path)
    assert df(tmp_path)["x"].tolist() == [1]
    replace(other, a)
    assert assert_same(tmp_path)["x"].tolist() == [2]


def test_a_journal_changed_behind_its_time_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    with cox.Store(tmp_path / "live", "run") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
        shutil.copytree(tmp_path / "live" / "run", tmp_path / "runs" / "run")
    (path,) = (tmp_path / "runs" / "run" / ".cox" / "journal").glob("*.log")
    settle(tmp_path / "runs")
    assert df(tmp_path / "runs")["x"].tolist() == [1]
    times, data = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    reads.clear()
    with cox.CollectionReader(tmp_path / "runs", cache=True) as reader, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.tables  # noqa: B018
    assert reads[:1] == ["run"]


def test_a_journal_that_a_copying_program_brought_and_hid(tmp_path: Path) -> None:
    """rsync sets the time of a directory back to that of the original, in whole seconds where need be."""
    run = make(tmp_path, "run", {"x": 1, "s": ""})
    journals = run / ".cox" / "journal"
    os.utime(journals, ns=(10**18, 10**18))
    settle(tmp_path)
    assert df(tmp_path)["x"].tolist() == [1]
    shutil.copytree(run, tmp_path / "away" / "run")
    with cox.Store(tmp_path / "away", "run") as store:
        store["t"].append_row({"x": 2, "s": ""})
        for path in (tmp_path / "away" / "run" / ".cox" / "journal").glob("*.log"):
            shutil.copy2(path, journals / path.name)
    os.utime(journals, ns=(10**18, 10**18))
    assert assert_same(tmp_path)["x"].tolist() == [1, 2]


#: Those of the oldest and of the newest upstream.
GOLDEN = sorted(
    path
    for path in Path(__file__).parents[2].glob("compat/golden/stores/*/*/store.h5")
    if path.parts[-3].startswith(("py36", "py311-pandas3"))
)


@pytest.mark.parametrize("store", GOLDEN, ids=lambda path: f"{path.parts[-3][:5]}-{path.parts[-2]}")
def test_all_that_upstream_ever_wrote_is_kept(tmp_path: Path, store: Path, reads: list[str]) -> None:
    shutil.copytree(store.parent, tmp_path / "runs" / "a")
    settle(tmp_path / "runs")
    with cox.CollectionReader(tmp_path / "runs", cache=False) as reader:
        schemas = reader.schemas
    for key, columns in schemas.items():
        assert_same(tmp_path / "runs", key, keep_serialized=list(columns))
        reads.clear()
        df(tmp_path / "runs", key, keep_serialized=list(columns))
        assert reads == []


def test_pandas_appends_to_an_upstream_store_in_place(tmp_path: Path) -> None:
    (golden,) = (path.parent for path in GOLDEN if "py311-pandas3.1" in str(path) and "every" in str(path))
    shutil.copytree(golden, tmp_path / "a")
    settle(tmp_path)
    path = tmp_path / "a" / "store.h5"
    with cox.CollectionReader(tmp_path, cache=False) as reader:
        key, columns = next(
            (key, list(one)) for key, one in reader.schemas.items() if set(one.values()) == {int, float}
        )
    before = df(tmp_path, key)
    inode = path.stat().st_ino
    with pd.HDFStore(path, mode="a") as opened:
        opened.append(key, opened[key])
    assert path.stat().st_ino == inode
    assert len(assert_same(tmp_path, key)) == 2 * len(before)
    assert columns


# --- What is kept


def test_what_changed_a_moment_ago_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change again within the same tick of the clock, and look the same."""
    monkeypatch.setattr(saving, "_SETTLED", 2_000_000_000)
    run = make(tmp_path, "a")
    df(tmp_path)
    assert Cache(tmp_path).states == {}
    really = saving._Saving._clock
    monkeypatch.setattr(saving._Saving, "_clock", lambda self: really(self) + 3_000_000_000)
    df(tmp_path)
    assert Cache(tmp_path).states == {"a": scan.state_of(os.fspath(run))}


@pytest.mark.parametrize(
    ("age", "took", "kept"),
    [(2_000_000_000, 0.0, True), (1_999_999_999, 0.0, False), (3_000_000_000, 1.5, False)],
    ids=["rests", "moves", "slow reader"],
)
def test_a_file_rests_for_two_seconds_before_reading_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, took: float, kept: bool
) -> None:
    monkeypatch.undo()
    as_runs(tmp_path, "store", "status", "journals", "journal", "old")
    now = 10**18
    monkeypatch.setattr(saving._Saving, "_clock", lambda self: now)
    at = now - age
    states = {
        "store": OLD._replace(changed=at),
        "status": OLD._replace(touched=at),
        "journals": OLD._replace(journal_dir=at),
        "journal": OLD._replace(journals=(("main-00000001.log", (1, 2, 3, at)),)),
        "old": OLD,
    }
    saving.save(tmp_path, fresh(states, {name: [1] for name in states}), took=took)
    assert set(Cache(tmp_path).states) == (set(states) if kept else {"old"})
    assert Cache(tmp_path).with_rows("t") == (set(states) if kept else {"old"})


def test_times_in_the_future_are_never_kept(tmp_path: Path, reads: list[str]) -> None:
    run = make(tmp_path, "a")
    os.utime(run / "store.h5", (2**32, 2**32))
    time.sleep(0.02)
    df(tmp_path)
    df(tmp_path)
    assert reads == ["a", "a"]


@pytest.mark.parametrize(
    ("runs", "given", "kept"), [(4, None, False), (5, None, True), (1, True, True), (5, False, False)]
)
def test_what_is_worth_keeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, given: bool | None, kept: bool
) -> None:
    monkeypatch.setattr("cox.collection.reading._WORTH_RUNS", 5)
    for number in range(runs):
        make(tmp_path, f"r{number}")
    settle(tmp_path)
    df(tmp_path, cache=given)
    assert (tmp_path / layout.CACHE_DIR).exists() == kept


def test_large_runs_are_worth_keeping_though_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cox.collection.reading._WORTH_BYTES", 100)
    make(tmp_path, "a", {"x": 1}, x=int)
    settle(tmp_path)
    df(tmp_path, cache=None)
    assert not (tmp_path / layout.CACHE_DIR).exists()
    make(tmp_path, "a", *({"x": x} for x in range(20)), x=int)
    settle(tmp_path)
    df(tmp_path, cache=None)
    assert Cache(tmp_path).with_rows("t") == {"a"}


def test_cache_false_looks_at_no_cache(tmp_path: Path) -> None:
    make(tmp_path, "a")
    settle(tmp_path)
    df(tmp_path)
    (tmp_path / layout.CACHE_DIR).rename(tmp_path / "kept")
    os.mkfifo(tmp_path / layout.CACHE_DIR)
    assert len(df(tmp_path, cache=False)) == 3
    assert len(df(tmp_path)) == 3


def test_a_damaged_run_is_never_kept_and_warned_of_each_time(tmp_path: Path, reads: list[str]) -> None:
    make(tmp_path, "a")
    with cox.Store(tmp_path / "live", "b") as store:
        table = store.add_table("t", {"x": int, "s": str})
        for x in range(4):
            table.append_row({"x": x, "s": ""})
        shutil.copytree(tmp_path / "live" / "b", tmp_path / "b")
    shutil.rmtree(tmp_path / "live")
    (path,) = (tmp_path / "b" / ".cox" / "journal").glob("*.log")
    data = bytearray(path.read_bytes())
    data[-40] ^= 255
    path.write_bytes(data)
    settle(tmp_path)
    for _ in range(3):
        with pytest.warns(cox.errors.DamageWarning, match="run b"):
            found = df(tmp_path)
    assert found["exp_id"].tolist()[:3] == ["a"] * 3
    assert reads.count("a") == 1
    assert reads.count("b") == 3


def test_a_run_that_cannot_be_read_is_said_to_be_so_each_time(tmp_path: Path) -> None:
    make(tmp_path, "a")
    make(tmp_path, "b")
    settle(tmp_path)
    df(tmp_path)
    (tmp_path / "b" / "store.h5").write_bytes(b"no store")
    for _ in range(2):
        with pytest.raises(cox.errors.DamagedError, match="b"):
            df(tmp_path)
        with pytest.warns(cox.errors.CollectionWarning, match="run b is left out"):
            assert df(tmp_path, skip_errors=True)["exp_id"].tolist() == ["a"] * 3


def test_runs_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    for name in "abc":
        make(tmp_path, name)
    settle(tmp_path)
    df(tmp_path)
    shutil.rmtree(tmp_path / "b")
    assert assert_same(tmp_path)["exp_id"].tolist() == [*"aaaccc"]
    make(tmp_path, "d")
    settle(tmp_path)
    df(tmp_path)
    assert set(Cache(tmp_path).states) == {"a", "c", "d"}
    for name in "acd":
        shutil.rmtree(tmp_path / name)
    make(tmp_path, "e")
    settle(tmp_path)
    df(tmp_path)
    assert set(Cache(tmp_path).states) == {"e"}
    df(tmp_path, exp_filter=lambda name: name == "e")
    make(tmp_path, "e")
    settle(tmp_path)
    df(tmp_path)
    assert len(segments_of(tmp_path)) == 1, "and their rows go"


def test_runs_with_names_that_are_no_text_and_inodes_of_all_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    for name in "ab":
        make(tmp_path, name)
    (tmp_path / "a").rename(tmp_path / "a\udcff")
    settle(tmp_path)
    for _ in range(2):
        reads.clear()
        assert len(df(tmp_path, append_exp_id=False)) == 6
    assert reads == ["a\udcff"], "only what can be noted is kept"
    really = os.stat

    def stat(*args: Any, **options: Any) -> Any:
        found = list(really(*args, **options))
        made = really(*args, **options)
        found[1] |= 1 << 63
        extra = {name: getattr(made, name) for name in ("st_mtime_ns", "st_ctime_ns")}
        return os.stat_result(found, extra)

    make(tmp_path, "b")
    settle(tmp_path)
    monkeypatch.setattr(scan, "os", Os(stat))
    for _ in range(2):
        reads.clear()
        assert len(df(tmp_path, append_exp_id=False)) == 9
    assert reads == ["a\udcff"]


class Os:
    """The module, on a file system with other inodes."""

    def __init__(self, stat: Callable[..., Any]) -> None:
        self.stat = stat

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


# --- Folders


def test_runs_deeper_in_a_folder(tmp_path: Path, reads: list[str]) -> None:
    make(tmp_path / "sweep" / "deep", "a")
    make(tmp_path / "sweep", "b")
    make(tmp_path, "a")
    settle(tmp_path, nested=True)
    found = assert_same(tmp_path, nested=True)
    assert found["exp_id"].tolist() == ["a"] * 3 + ["sweep/b"] * 3 + ["sweep/deep/a"] * 3
    reads.clear()
    assert_same(tmp_path, nested=True)
    assert len(reads) == 3
    reads.clear()
    assert df(tmp_path)["exp_id"].tolist() == ["a"] * 3
    assert reads == [], "one cache for both ways"
    make(tmp_path / "sweep" / "deep", "a")
    assert len(assert_same(tmp_path, nested=True)) == 12


def test_the_same_names_in_several_folders(tmp_path: Path, reads: list[str]) -> None:
    for at, folder in enumerate(("one", "two")):
        for name in "ab":
            make(tmp_path / folder, name, {"x": at, "s": f"{folder}/{name}"})
    settle(tmp_path / "one")
    settle(tmp_path / "two")
    folders = [tmp_path / "two", tmp_path / "one"]
    for _ in range(2):
        found = assert_same(folders)
        assert found["exp_id"].tolist() == ["a", "b", "one/a", "one/b"]
        assert found["s"].tolist() == ["two/a", "two/b", "one/a", "one/b"]
    reads.clear()
    assert df(tmp_path / "one")["s"].tolist() == ["one/a", "one/b"]
    assert df(folders)["s"].tolist() == found["s"].tolist()
    assert reads == []


def test_the_cache_of_another_folder_is_of_no_use_and_no_harm(tmp_path: Path) -> None:
    for at, folder in enumerate(("one", "two")):
        for name in "ab":
            make(tmp_path / folder, name, {"x": at, "s": ""})
        settle(tmp_path / folder)
        df(tmp_path / folder)
    shutil.rmtree(tmp_path / "two" / layout.CACHE_DIR)
    shutil.copytree(tmp_path / "one" / layout.CACHE_DIR, tmp_path / "two" / layout.CACHE_DIR)
    assert assert_same(tmp_path / "two")["x"].tolist() == [1, 1]
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    make(tmp_path / "copy", "a", {"x": 5, "s": ""})
    assert assert_same(tmp_path / "copy")["x"].tolist() == [0, 5, 0]


# --- Few segments, little outdated


def test_many_pieces_are_joined(tmp_path: Path, reads: list[str]) -> None:
    for name in "abcdefgh":
        make(tmp_path, name)
    for at in range(24):
        make(tmp_path, "abcdefgh"[at % 8], {"x": at, "s": "é" * at})
        settle(tmp_path)
        df(tmp_path)
        assert len(segments_of(tmp_path)) <= saving._MOST_PIECES + 3
    assert_same(tmp_path)
    reads.clear()
    df(tmp_path)
    assert reads == []
    found = Cache(tmp_path)
    assert len(found.index.segments) == len(segments_of(tmp_path))


def test_pieces_are_not_joined_for_being_of_many_schemas(tmp_path: Path) -> None:
    for at in range(20):
        make(tmp_path, f"r{at:02}", {f"y{at}": 1.0}, **{f"y{at}": float})
    settle(tmp_path)
    df(tmp_path)
    before = set(segments_of(tmp_path))
    assert len(before) == 20
    make(tmp_path, "r00", {"y0": 2.0}, y0=float)
    settle(tmp_path)
    df(tmp_path)
    assert len(before & set(segments_of(tmp_path))) >= 19


def test_what_is_mostly_outdated_is_written_anew(tmp_path: Path) -> None:
    as_runs(tmp_path, *"abcd")
    saving.save(tmp_path, fresh(dict.fromkeys("abcd", OLD), {name: [1, 2] for name in "abcd"}), took=0)
    (first,) = segments_of(tmp_path)
    newer = OLD._replace(size=9)
    saving.save(tmp_path, fresh(dict.fromkeys("ab", newer), {"a": [3], "b": [4]}), took=0)
    assert first in segments_of(tmp_path), "half of it is in use"
    saving.save(tmp_path, fresh({"c": newer}, {"c": [5]}), took=0)
    assert first not in segments_of(tmp_path), "with less than half of it in use"
    saving.save(tmp_path, fresh({"d": newer}, {"d": [6, 7]}), took=0)
    made = Cache(tmp_path)
    assert rows_of(made.blocks("t", list("dcba"), None)) == {"d": [6, 7], "c": [5], "b": [4], "a": [3]}
    assert sum(path.stat().st_size for path in segments_of(tmp_path)) == 8 * 5


def test_tidying_goes_through_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at once are joined as fit, and not to pieces that are larger than need be."""
    names = [f"r{at}" for at in range(30)]
    as_runs(tmp_path, *names)
    tidied: list[int] = []
    really = saving._Saving._rewrite

    def rewrite(self: Any, table: str, old: list[index.Segment], names: list[str]) -> None:
        tidied.append(sum(segment.size for segment in old))
        really(self, table, old, names)

    monkeypatch.setattr(saving._Saving, "_rewrite", rewrite)
    monkeypatch.setattr(saving, "_TIDIED_BYTES", 6400)
    for module in (saving, blocks):
        monkeypatch.setattr(module, "BYTES_IN_BLOCK", 3200)
    for name in names:
        saving.save(tmp_path, fresh({name: OLD}, {name: [1] * 100}), took=0)
    assert 3200 < max(tidied) < 6400 + 3200 / 2
    assert 3200 in {path.stat().st_size for path in segments_of(tmp_path)}, "and then those are large enough"
    assert rows_of(Cache(tmp_path).blocks("t", names, None)) == {name: [1] * 100 for name in names}


def test_a_damaged_segment_is_no_obstacle_to_tidying(tmp_path: Path) -> None:
    names = [f"r{at:02}" for at in range(saving._MOST_PIECES + 2)]
    as_runs(tmp_path, *names, "z")
    for at, name in enumerate(names):
        saving.save(tmp_path, fresh({name: OLD}, {name: [at]}), took=0)
    segments_of(tmp_path)[3].write_bytes(b"")
    saving.save(tmp_path, fresh({"z": OLD}, {"z": [99]}), took=0)
    made = Cache(tmp_path)
    there = made.with_rows("t")
    assert "z" in there
    for name in there:
        assert rows_of(made.blocks("t", [name], None)) == {name: [99 if name == "z" else names.index(name)]}


def test_heads_of_nobody_go(tmp_path: Path) -> None:
    for at in range(5):
        make(tmp_path, "a", {"x": at}, table=f"t{at}", x=int)
        settle(tmp_path)
        df(tmp_path, f"t{at}")
    assert len(Cache(tmp_path).index.heads) == 1


def test_a_wrong_entry_is_put_right(tmp_path: Path, reads: list[str]) -> None:
    """Its number of rows is other than those that are read, however it came to that."""
    make(tmp_path, "a")
    settle(tmp_path)
    df(tmp_path)
    found = Cache(tmp_path).index
    entries = found.entries()
    entries["a"].nrows = [77]
    index.save(tmp_path / layout.CACHE_DIR / files.INDEX_FILE, found, entries)
    assert len(df(tmp_path)) == 3
    reads.clear()
    assert len(df(tmp_path)) == 3
    assert reads == []


# --- The limit, and what lies around


def kilobytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in segments_of(folder)) / 1024


def test_the_oldest_rows_go_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COX_CACHE_MB", str(10 / 1024))
    as_runs(tmp_path, *"abcdef")
    for name in "abcdef":
        saving.save(tmp_path, fresh({name: OLD}, {name: [1] * 384}), took=0)  # 3 KiB each
        assert kilobytes(tmp_path) <= 10
    made = Cache(tmp_path)
    assert made.with_rows("t") == {"d", "e", "f"}
    assert set(made.states) == set("abcdef"), "what tables they have is known all the same"


def test_what_does_not_fit_pushes_nothing_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COX_CACHE_MB", str(10 / 1024))
    as_runs(tmp_path, *"abc")
    saving.save(tmp_path, fresh({"a": OLD}, {"a": [1] * 384}), took=0)
    saving.save(tmp_path, fresh({"b": OLD}, {"b": [1] * 2000}), took=0)
    assert Cache(tmp_path).with_rows("t") == {"a"}
    assert len(segments_of(tmp_path)) == 1
    monkeypatch.setenv("COX_CACHE_MB", str(2 / 1024))
    saving.save(tmp_path, fresh({"c": OLD}, {"c": [1]}), took=0)
    assert Cache(tmp_path).with_rows("t") == {"c"}
    assert kilobytes(tmp_path) < 2


def test_a_limit_of_nothing_leaves_nothing_lying_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COX_CACHE_MB", "0")
    make(tmp_path, "a")
    settle(tmp_path)
    for _ in range(3):
        assert_same(tmp_path)
    assert [path.name for path in (tmp_path / layout.CACHE_DIR).iterdir()] == [files.INDEX_FILE]


@pytest.mark.parametrize("given", ["much", "nan", "inf"])
def test_a_limit_that_is_no_number_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given: str
) -> None:
    monkeypatch.setenv("COX_CACHE_MB", given)
    make(tmp_path, "a")
    settle(tmp_path)
    with caplog.at_level(logging.WARNING, logger="cox"):
        assert_same(tmp_path)
    assert f"COX_CACHE_MB={given!r} is no number of MiB: the limit is 4096" in caplog.text
    assert Cache(tmp_path).with_rows("t") == {"a"}


ORPHAN, UNFINISHED = f"{'0' * 32}.rows", f".tmp-{'0' * 32}"


def test_what_a_killed_reader_left_goes_after_a_while(tmp_path: Path) -> None:
    directory = tmp_path / layout.CACHE_DIR
    directory.mkdir()
    (directory / "a directory").mkdir()
    others = {"notes.txt", "index", "x.rows", ".tmp-", "index.coxcache.bak"}
    young = {f"{'1' * 32}.rows", f".tmp-{'1' * 32}"}
    for name in {ORPHAN, UNFINISHED} | others | young:
        (directory / name).write_bytes(b"x")
        os.utime(directory / name, (1, 1) if name not in young else None)
    os.utime(directory / "a directory", (1, 1))
    make(tmp_path, "a")
    settle(tmp_path)
    assert_same(tmp_path)
    left = {path.name for path in directory.iterdir()}
    assert left - {path.name for path in segments_of(tmp_path)} - young == others - {"x.rows"} | {
        files.INDEX_FILE,
        "a directory",
    }
    assert young <= left
    assert (directory / "x.rows").exists()
    cache.clear(tmp_path)
    assert {path.name for path in directory.iterdir()} == others | {"a directory"}


def test_a_link_in_the_place_of_the_cache_costs_nobody_a_file(tmp_path: Path) -> None:
    """As somebody makes who wants the cache on another disk, or the victim of somebody who wants it gone."""
    other = tmp_path / "home"
    other.mkdir()
    for name in ("thesis.tex", "index", "store.h5"):
        (other / name).write_text(name)
        os.utime(other / name, (1, 1))
    make(tmp_path / "runs", "a")
    settle(tmp_path / "runs")
    (tmp_path / "runs" / layout.CACHE_DIR).symlink_to(other)
    for _ in range(2):
        assert_same(tmp_path / "runs")
    cache.clear(tmp_path / "runs")
    assert {path.name: path.read_text() for path in other.iterdir()} == {
        name: name for name in ("thesis.tex", "index", "store.h5")
    }


def test_size_and_clear(tmp_path: Path, reads: list[str]) -> None:
    assert cache.size(tmp_path) == (0, 0, 0)
    cache.clear(tmp_path)
    for name in "ab":
        make(tmp_path, name)
    settle(tmp_path)
    df(tmp_path)
    directory = tmp_path / layout.CACHE_DIR
    assert cache.size(tmp_path) == (2, 1, sum(path.stat().st_size for path in directory.iterdir()))
    cache.clear(tmp_path)
    assert not directory.exists()
    assert_same(tmp_path)
    assert directory.exists()
    cache.clear(tmp_path)
    directory.write_bytes(b"in the way")
    assert cache.size(tmp_path) == (0, 0, 0)
    assert_same(tmp_path)  # which is kept in the user's own place
    cache.clear(tmp_path)
    assert cache.size(tmp_path) == (0, 0, 0)
    assert directory.read_bytes() == b"in the way"


def test_files_that_go_while_they_are_counted_or_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two readers sweep, or one clears, while another one does."""
    make(tmp_path, "a")
    settle(tmp_path)
    df(tmp_path)
    really = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        yield from really(self)
        if self.name == layout.CACHE_DIR:
            yield self / ORPHAN

    monkeypatch.setattr(Path, "iterdir", iterdir)
    runs, pieces, size = cache.size(tmp_path)
    assert (runs, pieces) == (1, 1)
    assert size > 0
    make(tmp_path, "a")
    settle(tmp_path)
    assert_same(tmp_path)
    assert len(segments_of(tmp_path)) == 1
    cache.clear(tmp_path)
    assert not (tmp_path / layout.CACHE_DIR).exists()


def test_an_interrupted_save_leaves_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a")
    settle(tmp_path)

    def interrupted(path: Path, data: bytes, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fs, "replace_bytes", interrupted)
        df(tmp_path)
    assert segments_of(tmp_path) == []


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with files.opened(path) as file:
        assert file.read() == b"x"
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(cox.errors.IrregularFileError, match="is a link"):
        files.opened(tmp_path / "link")
    for other in (tmp_path / "pipe", tmp_path):
        with pytest.raises(cox.errors.IrregularFileError, match="not a regular file"):
            files.opened(other)
    with pytest.raises(FileNotFoundError):
        files.opened(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (files.INDEX_FILE, True),
        (f"{'0a' * 16}.rows", True),
        (f".tmp-{'0a' * 16}", True),
        ("index", False),
        ("a.rows", False),
        (f"{'0A' * 16}.rows", False),
        (f"{'0a' * 16}.rows\n", False),
        (".tmp-", False),
        ("", False),
    ],
    ids=repr,
)
def test_which_files_are_a_caches_own(name: str, own: bool) -> None:
    assert files.is_own(name) == own
