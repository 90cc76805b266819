"""Damaged files: the right rows, or fewer and a warning that says which, or an error; never other rows.

Every journal below is cut off at every byte, and has every one of its bits flipped. A row that comes back
is one that was written, in its place; one that does not come back is warned about. Only what looks like the
beginning of a last record may be missing in silence: a live run ends like that while a row is being written.
"""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.errors import CoxError, DamagedError, DamageWarning, FormatVersionError
from cox.storage import empty, journal, layout, snapshot
from tests.crash import workload

#: Bits of store.h5 to flip, in files of which every bit would take too long.
FLIPS = int(os.environ.get("COX_FLIPS", "400"))
SEED = int(os.environ.get("COX_SEED", "0")) or random.SystemRandom().randrange(1 << 32)

Rows = list[tuple[Any, ...]]


@dataclass
class Read:
    """What a reader got of a damaged run.

    Attributes:
        rows: For each table.
        warnings: What it was warned of, if nothing was raised.
        error: What was raised instead.
    """

    rows: dict[str, Rows]
    warnings: list[str]
    error: CoxError | None = None


def read(folder: Path) -> Read:
    """Read a run. Whatever else than a CoxError and a DamageWarning comes up fails the test."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with cox.Store(folder, "run", mode="r") as store:
                rows = {name: rows_of(store, name) for name in list(store.tables)}
        except CoxError as error:
            return Read({}, [], error)
    assert {w.category for w in caught} <= {DamageWarning}, [str(w.message) for w in caught]
    return Read({name: found for name, found in rows.items() if found}, [str(w.message) for w in caught])


def read_quickly(folder: Path) -> Read:
    """The same without Store and pandas, for damage that comes in thousands."""
    try:
        now = snapshot.read(layout.RunLayout(folder / "run"))
    except CoxError as error:
        return Read({}, [], error)
    rows = {}
    for name, table in now.tables.items():
        cells = []
        for column in table.schema:
            values, missing = table.column(column)
            absent = [False] * len(values) if missing is None else missing
            cells.append(
                [None if gone else value for value, gone in zip(values.tolist(), absent, strict=True)]
            )
        rows[name] = list(zip(*cells, strict=True))
    return Read({name: found for name, found in rows.items() if found}, now.damage)


def rows_of(store: cox.Store, name: str) -> Rows:
    columns, rows = workload.plain_rows(store, name)
    return [tuple(row[column] for column in columns) for row in rows]


def is_subsequence(some: Rows, all_rows: Rows) -> bool:
    """Whether these are some of the rows, in their order, each at most once."""
    left = iter(all_rows)
    return all(any(row == other for other in left) for row in some)


def live_run(folder: Path, log: Callable[[cox.Store], object], **options: Any) -> tuple[Path, bytes]:
    """A run as it is found while a process writes it: its only journal, and what that holds."""
    store = cox.Store(folder / "live", "run", **options)
    log(store)
    shutil.copytree(folder / "live" / "run", folder / "run")
    store.close()
    (path,) = layout.RunLayout(folder / "run").journal_dir.iterdir()
    return path, path.read_bytes()


def rows_only(store: cox.Store) -> None:
    table = store.add_table("t", {"step": int, "loss": float, "note": str | None})
    for step in range(5):
        table.append_row({"step": step * 77, "loss": step / 3, "note": "é" * step})


def two_tables_and_a_column(store: cox.Store) -> None:
    table, other = store.add_table("t", {"step": int}), store.add_table("a/b", {"f(x)": float})
    for step in range(3):
        table.append_row({"step": step})
        other.append_row({"f(x)": -0.5 * step})
    table.add_column("late", str)
    for step in range(3, 6):
        table.append_row({"step": step, "late": "x" * step})


def rewound(store: cox.Store) -> None:
    table = store.add_table("t", {"step": int, "attempt": int})
    for step in range(4):
        table.append_row({"step": step, "attempt": 1})
    store.rewind("t", 2, purge_tensorboard=False)
    for step in range(2, 5):
        table.append_row({"step": step, "attempt": 2})


def rewound_below_the_fold(store: cox.Store) -> None:
    table = store.add_table("t", {"step": int, "attempt": int})
    for step in range(4):
        table.append_row({"step": step, "attempt": 1})
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    table.append_row({"step": 4, "attempt": 1})
    store.rewind("t", 2, purge_tensorboard=False)
    for step in range(2, 4):
        table.append_row({"step": step, "attempt": 2})


def rewound_at_last(store: cox.Store) -> None:
    table = store.add_table("t", {"step": int, "attempt": int})
    for step in range(4):
        table.append_row({"step": step, "attempt": 1})
    store.rewind("t", 1, purge_tensorboard=False)


LOGS = [rows_only, two_tables_and_a_column, rewound, rewound_below_the_fold, rewound_at_last]


@pytest.fixture(params=LOGS, ids=lambda log: log.__name__)
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path, bytes, Read]]:
    """A run, its journal, what that holds, and what a reader gets of it as it is."""
    path, data = live_run(tmp_path, request.param)
    whole = read(tmp_path)
    assert whole.rows
    assert not whole.warnings
    yield tmp_path, path, data, whole


def test_a_journal_cut_off_at_any_byte_gives_the_rows_before(
    damaged: tuple[Path, Path, bytes, Read],
) -> None:
    folder, path, data, _ = damaged
    seen = []
    whole_ends = ends_of_records(data)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        found = read(folder)
        assert found.error is None
        assert found.warnings == [], "the end of a live run is no damage"
        if seen and found.rows != seen[-1]:
            assert length in whole_ends, "rows change only where a record is complete"
        if not seen or found.rows != seen[-1]:
            seen.append(found.rows)
    assert len(seen) > 3


def ends_of_records(data: bytes) -> set[int]:
    ends, position = set(), len(journal.HEADER)
    while position < len(data):
        position += 10 + int.from_bytes(data[position + 2 : position + 6], "little")
        ends.add(position)
    assert position == len(data)
    return ends


def test_a_flipped_bit_anywhere_in_a_journal_never_gives_another_row(
    damaged: tuple[Path, Path, bytes, Read],
) -> None:
    folder, path, data, whole = damaged
    last = max(end for end in ends_of_records(data) if end < len(data))
    choose = random.Random(SEED)
    for at in range(len(data)):
        sample = choose.randrange(8 * 3)  # with Store and pandas, a third of the bytes
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            path.write_bytes(broken)
            found = read_quickly(folder)
            check_damaged(
                found, whole, in_header=at < len(journal.HEADER), in_length=last + 2 <= at < last + 6
            )
            if bit == sample:
                slowly = read(folder)
                assert slowly.rows == found.rows
                assert type(slowly.error) is type(found.error)
                assert bool(slowly.warnings) == bool(found.warnings)


def check_damaged(found: Read, whole: Read, *, in_header: bool, in_length: bool) -> None:
    if found.error is not None:
        assert in_header
        assert isinstance(found.error, FormatVersionError)
        assert str(layout.JOURNAL_DIR) in str(found.error)
        return
    for name, rows in found.rows.items():
        assert is_subsequence(rows, whole.rows[name]), found.warnings
    if found.rows == whole.rows:
        return
    if not found.warnings:
        # a last record that seems to be longer than the file is one that is being written
        assert in_length
        return
    missing = {
        name: [row for row in rows if row not in found.rows.get(name, [])]
        for name, rows in whole.rows.items()
    }
    said = " ".join(found.warnings)
    assert "damaged" in said or "lost" in said
    for name, rows in missing.items():
        inner = [whole.rows[name].index(row) for row in rows]
        # the number of a row shows by the next one of its table
        if inner and max(inner) < len(whole.rows[name]) - 1:
            assert re.search(rf"table {re.escape(repr(name))}: row {inner[0]} ", said), said


@pytest.mark.parametrize("bytes_lost", [1, 40, 400])
def test_a_hole_in_a_journal_costs_the_rows_that_it_touches(tmp_path: Path, bytes_lost: int) -> None:
    def log(store: cox.Store) -> None:
        table = store.add_table("t", {"step": int, "text": str})
        for step in range(60):
            table.append_row({"step": step, "text": f"row {step}"})

    path, data = live_run(tmp_path, log)
    whole = read(tmp_path)
    ends = sorted(ends_of_records(data))
    for start in range(len(journal.HEADER), len(data), 41):
        for filler in (b"\0", b"\xff", journal.MARK, b"COXLOG\x01\0"):
            hole = (filler * bytes_lost)[:bytes_lost]
            broken = (data[:start] + hole + data[start + bytes_lost :])[: len(data)]
            path.write_bytes(broken)
            found = read_quickly(tmp_path)
            assert found.error is None
            assert is_subsequence(found.rows.get("t", []), whole.rows["t"])
            both_declarations = start < ends[0] and start + bytes_lost > ends[0]
            if not both_declarations:
                assert len(found.rows["t"]) >= 60 - 2 - bytes_lost / 20
            if found.rows != whole.rows and start + bytes_lost < len(data):
                assert found.warnings


def test_a_damaged_run_goes_on_and_keeps_what_could_not_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, data = live_run(tmp_path, rows_only)
    whole = read(tmp_path).rows["t"]
    broken = bytearray(data)
    broken[sorted(ends_of_records(data))[2] + 14] ^= 1  # behind two declarations and a row: in the second
    path.write_bytes(broken)
    with caplog.at_level(logging.WARNING, logger="cox"):
        store = cox.Store(tmp_path, "run")
    assert "damaged" in caplog.text
    assert str(tmp_path / "run") in caplog.text
    kept = [file for file in path.parent.iterdir() if file.read_bytes() == bytes(broken)]
    assert len(kept) == 1, "what cannot be read today may be salvaged by hand"
    store["t"].append_row({"step": -1, "loss": 0.0})
    assert len(store["t"].df) == len(whole)
    store.close()
    after = read(tmp_path)
    assert after.warnings == []
    assert after.rows["t"] == [whole[0], *whole[2:], (-1, 0.0, None)]


def test_a_torn_tail_is_dropped_with_a_warning_at_recovery(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, data = live_run(tmp_path, rows_only)
    path.write_bytes(data[:-3])
    before = read(tmp_path)
    with caplog.at_level(logging.WARNING, logger="cox"), cox.Store(tmp_path, "run") as store:
        store["t"].append_row({"step": 9, "loss": 0.5, "note": None})
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    torn = len(data) - 3 - max(end for end in ends_of_records(data) if end < len(data) - 3)
    assert f"{torn} bytes" in record.getMessage()
    assert str(tmp_path / "run") in record.getMessage()
    assert read(tmp_path).rows == {"t": [*before.rows["t"], (9, 0.5, None)]}


def test_one_damaged_run_does_not_hurt_its_neighbours(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        with cox.Store(tmp_path, name) as store:
            rows_only(store)
    (tmp_path / "b" / "store.h5").write_bytes(b"no HDF5 at all")
    with cox.CollectionReader(tmp_path) as reader, pytest.raises(DamagedError, match="b/store.h5"):
        reader.df("t")
    with (
        cox.CollectionReader(tmp_path, skip_errs=True) as reader,
        pytest.warns(cox.errors.CollectionWarning, match="run b is left out"),
    ):
        assert set(reader.df("t")["exp_id"]) == {"a", "c"}


# --- store.h5


def folded_run(folder: Path) -> Path:
    """A run at rest, with every kind of column and both kinds of sidecars."""
    with cox.Store(folder, "run") as store:
        table = store.add_table(
            "t", {"step": int, "loss": float | None, "n": int | None, "ok": bool | None, "note": str | None}
        )
        for step in range(40):
            row: dict[str, Any] = {"step": step}
            if step % 3:
                row |= {"loss": step / 7, "n": 2**60 + step, "ok": step % 2 == 0, "note": f"{step}\0"}
            table.append_row(row)
        objects = store.add_table("objects", {"thing": cox.OBJECT})
        for step in range(3):
            objects.append_row({"thing": list(range(step))})
    return folder / "run" / "store.h5"


def test_a_flipped_bit_in_store_h5_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    path = folded_run(tmp_path)
    data, whole = path.read_bytes(), read_quickly(tmp_path)
    assert len(whole.rows["t"]) == 40
    choose = random.Random(SEED)
    refused = 0
    for number in range(FLIPS):
        at, bit = choose.randrange(len(data)), choose.randrange(8)
        broken = bytearray(data)
        broken[at] ^= 1 << bit
        path.write_bytes(broken)
        found = read_quickly(tmp_path)
        if found.error is None:
            assert found.rows == whole.rows, f"seed {SEED}, flip {number}: bit {bit} of byte {at}"
        else:
            assert isinstance(found.error, (DamagedError, FormatVersionError))
            assert str(path) in str(found.error)
            refused += 1
    assert refused > FLIPS / 10


def test_a_store_h5_cut_off_anywhere_is_an_error(tmp_path: Path) -> None:
    path = folded_run(tmp_path)
    data = path.read_bytes()
    choose = random.Random(SEED)
    lengths = {0, 1, 7, 8, 9, 47, 48, 95, 96, 512, len(data) - 1, len(empty.contents())}
    for length in lengths | set(choose.sample(range(len(data)), 60)):
        path.write_bytes(data[:length])
        found = read_quickly(tmp_path)
        assert isinstance(found.error, DamagedError), (
            f"seed {SEED}: the first {length} bytes gave {found.rows}"
        )
        assert str(path) in str(found.error)


def test_a_damaged_store_h5_is_left_as_it_is(tmp_path: Path) -> None:
    path = folded_run(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="store.h5"):
        cox.Store(tmp_path, "run")
    assert path.read_bytes() == bytes(data)
    assert workload.leftovers(tmp_path / "run") == []


def test_rows_of_a_journal_outlive_a_lost_store_h5(tmp_path: Path) -> None:
    with cox.Store(tmp_path / "live", "run") as store:
        rows_only(store)
    with cox.Store(tmp_path / "live", "run") as store:
        store["t"].append_row({"step": 9, "loss": 0.5})
        shutil.copytree(tmp_path / "live" / "run", tmp_path / "run")
    (tmp_path / "run" / "store.h5").unlink()
    found = read(tmp_path)
    assert found.rows == {"t": [(9, 0.5, None)]}
    assert any("rows 0 to 4" in said for said in found.warnings)
    assert any("lost" in said for said in found.warnings)
