"""Damaged files: the right rows, or fewer and a warning that says which, or an error; never other rows.

Every journal below is cut off at every byte, and has every one of its bits flipped. A row that comes back
is one that was written, in its place; one that does not come back is warned about. Only what looks like the
beginning of a last record may be missing in silence: a live run ends like that while a row is being written.

`verify` finds what readers are warned of, and nothing else. `repair` gives a run that is whole, with the
rows that were readable before, or more; the originals are kept.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import cox
from cox.errors import CoxError, DamagedError, DamageWarning, FormatVersionError
from cox.integrity.repair import Repair, repair
from cox.integrity.verify import runs_at, verify
from cox.storage import empty, journal, layout, snapshot
from cox.storage.hdf5 import writing
from cox.testing import invariants
from tests.crash.zygote import Zygote

#: Bits of store.h5 to flip, in files of which every bit would take too long. More of them is the long form:
#: everything else that is only sampled is sampled as many times more often.
FLIPS = int(os.environ.get("COX_FLIPS", "400"))
#: Of so many damaged runs one is repaired.
REPAIR_ONE_IN = max(1, 20 * 400 // FLIPS)
SEED = int(os.environ.get("COX_SEED", "1")) or random.SystemRandom().randrange(1 << 32)

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
    columns, rows = invariants.plain_rows(store, name)
    return [tuple(row[column] for column in columns) for row in rows]


def is_subsequence(some: Rows, all_rows: Rows, *, with_holes: bool = False) -> bool:
    """Whether these are some of the rows, in their order, each at most once; perhaps with cells missing."""
    left = iter(all_rows)
    return all(any(row == other or (with_holes and fits(row, other)) for other in left) for row in some)


def fits(row: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(cell is None or cell == value for cell, value in zip(row, other, strict=True))


def check_verify(folder: Path, found: Read) -> None:
    """`verify` finds what a reader was told, and nothing else, and changes nothing."""
    before = contents(folder / "run")
    report = verify(folder / "run")
    assert report.ok == (found.error is None and not found.warnings), (report, found)
    assert contents(folder / "run") == before


def check_repair(folder: Path, found: Read, whole: Read) -> Repair:
    """`repair`, of a copy, leaves what was readable and perhaps more, all originals, and no damage."""
    copy = folder / "copy" / "run"
    shutil.copytree(folder / "run", copy)
    before = contents(copy)
    done = repair(copy)
    assert done.after.ok, done
    assert verify(copy).ok
    after = read_quickly(folder / "copy")
    assert after.error is None
    assert after.warnings == []
    for name, rows in found.rows.items():
        assert is_subsequence(rows, after.rows[name]), "what was readable still is"
    for name, rows in after.rows.items():
        assert is_subsequence(rows, whole.rows[name], with_holes=True), (name, done)
    kept = set(contents(copy).values())
    bookkeeping = (layout.CLAIMS_DIR, layout.META_DIR)  # claims, and a lock
    assert all(data in kept for path, data in before.items() if path.parent.name not in bookkeeping)
    shutil.rmtree(copy.parent)
    return done


def contents(run: Path) -> dict[Path, bytes]:
    """Every file of a run."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def live_run(folder: Path, log: Callable[[cox.Store], object], **options: Any) -> tuple[Path, bytes]:
    """A run as it is found while a process writes it: its only journal, and what that holds."""
    store = cox.Store(folder / "live", "run", **options)
    log(store)
    shutil.copytree(folder / "live" / "run", folder / "run")
    store.close()
    (path,) = layout.RunLayout(folder / "run").journal_dir.glob("*.log")
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
        found = read(folder) if length % 4 == 0 else read_quickly(folder)
        assert found.error is None
        assert found.warnings == [], "the end of a live run is no damage"
        check_verify(folder, found)
        if seen and found.rows != seen[-1]:
            assert length in whole_ends, "rows change only where a record is complete"
        if not seen or found.rows != seen[-1]:
            seen.append(found.rows)
    assert len(seen) > 3


def header_size(data: bytes) -> int:
    """Of a journal as it was written."""
    return 18 + int.from_bytes(data[10:14], "little")


def ends_of_records(data: bytes) -> set[int]:
    ends, position = set(), header_size(data)
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
        sample = choose.randrange(8 * 5)  # with Store and pandas, a fifth of the bytes
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            path.write_bytes(broken)
            found = read_quickly(folder)
            check_damaged(found, whole, in_header=at < header_size(data), in_length=last + 2 <= at < last + 6)
            if bit == sample:
                slowly = read(folder)
                assert slowly.rows == found.rows
                assert type(slowly.error) is type(found.error)
                assert bool(slowly.warnings) == bool(found.warnings)
                check_verify(folder, found)
                if found.warnings and choose.randrange(REPAIR_ONE_IN) == 0:
                    check_repair(folder, found, whole)


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
    choose = random.Random(SEED)
    for start in range(header_size(data), len(data), 41):
        for filler in (b"\0", b"\xff", journal.MARK, b"COXLOG\x01\0"):
            hole = (filler * bytes_lost)[:bytes_lost]
            broken = (data[:start] + hole + data[start + bytes_lost :])[: len(data)]
            path.write_bytes(broken)
            found = read_quickly(tmp_path)
            assert found.error is None
            check_verify(tmp_path, found)
            if found.warnings and choose.randrange(REPAIR_ONE_IN) == 0:
                check_repair(tmp_path, found, whole)
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


def folded_run(folder: Path, rows: int = 40) -> Path:
    """A run at rest, with every kind of column and both kinds of sidecars."""
    with cox.Store(folder, "run") as store:
        table = store.add_table(
            "t", {"step": int, "loss": float | None, "n": int | None, "ok": bool | None, "note": str | None}
        )
        for step in range(rows):
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
    assert verify(tmp_path / "run").ok
    choose = random.Random(SEED)
    refused = 0
    for number in range(FLIPS):
        at, bit = choose.randrange(len(data)), choose.randrange(8)
        broken = bytearray(data)
        broken[at] ^= 1 << bit
        path.write_bytes(broken)
        found = read_quickly(tmp_path)
        if number % 4 == 0:
            check_verify(tmp_path, found)
        if found.error is None:
            assert found.rows == whole.rows, f"seed {SEED}, flip {number}: bit {bit} of byte {at}"
            continue
        assert isinstance(found.error, DamagedError)
        assert str(path) in str(found.error)
        refused += 1
        if choose.randrange(REPAIR_ONE_IN) == 0:
            check_repair(tmp_path, found, whole)
    assert refused > FLIPS / 10


def test_a_store_h5_cut_off_anywhere_is_an_error(tmp_path: Path) -> None:
    path = folded_run(tmp_path)
    data, whole = path.read_bytes(), read_quickly(tmp_path)
    choose = random.Random(SEED)
    lengths = {0, 1, 7, 8, 9, 47, 48, 95, 96, 512, len(data) - 1, len(empty.contents())}
    for length in lengths | set(choose.sample(range(len(data)), 60)):
        path.write_bytes(data[:length])
        found = read_quickly(tmp_path)
        assert isinstance(found.error, DamagedError), (
            f"seed {SEED}: the first {length} bytes gave {found.rows}"
        )
        assert str(path) in str(found.error)
        check_verify(tmp_path, found)
        if choose.randrange(REPAIR_ONE_IN) == 0:
            check_repair(tmp_path, found, whole)


def test_a_damaged_store_h5_is_left_as_it_is(tmp_path: Path) -> None:
    path = folded_run(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="store.h5"):
        cox.Store(tmp_path, "run")
    assert path.read_bytes() == bytes(data)
    assert invariants.leftovers(tmp_path / "run") == []


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


@pytest.mark.parametrize(("page", "rows", "chunk"), [(256, 40, 400), (4096, 2000, 20_000)])
def test_a_zeroed_page_is_an_error_or_changes_nothing(
    tmp_path: Path, page: int, rows: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_CHUNK_BYTES", chunk)
    path = folded_run(tmp_path, rows)
    data, whole = path.read_bytes(), read_quickly(tmp_path)
    choose, kept = random.Random(SEED), 0
    for start in range(0, len(data), page):
        path.write_bytes(data[:start] + bytes(len(data[start : start + page])) + data[start + page :])
        found = read_quickly(tmp_path)
        check_verify(tmp_path, found)
        if found.error is None:
            assert found.rows == whole.rows
        elif page > 256 or choose.randrange(max(1, REPAIR_ONE_IN // 4)) == 0:
            kept += sum(check_repair(tmp_path, found, whole).kept.values())
    assert kept


def test_a_wide_table_is_guarded_where_hdf5_has_no_checksum(tmp_path: Path) -> None:
    """An attribute beyond 64 KB lies outside of what HDF5 checks: a flipped bit there renamed a column."""
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {f"column_{at}": int for at in range(1500)}).append_row(
            {f"column_{at}": at for at in range(1500)}
        )
    path = tmp_path / "run" / "store.h5"
    data, whole = path.read_bytes(), read_quickly(tmp_path)
    start = data.index(b'{"version": 2, "tables"')
    choose = random.Random(SEED)
    for at in [data.index(b"column_1200", start) + 8, *choose.sample(range(start, start + 64_000), 20)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = read_quickly(tmp_path)
        assert isinstance(found.error, DamagedError), f"seed {SEED}: byte {at} gave {found.rows}"
    path.write_bytes(data)
    assert read_quickly(tmp_path).rows == whole.rows


def test_an_error_that_is_kept_keeps_no_file_open(tmp_path: Path) -> None:
    """HDF5 takes a file that is open for the same one opened again, and what it has cached for its bytes."""
    path = folded_run(tmp_path)
    data = path.read_bytes()
    whole = read_quickly(tmp_path)
    kept = []
    for at in range(0, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        kept.append(read_quickly(tmp_path).error)
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])  # in place: it is the same file
        assert isinstance(read_quickly(tmp_path).error, DamagedError), at
    assert any(kept)
    path.write_bytes(data)
    assert read_quickly(tmp_path).rows == whole.rows


# --- Copies


def test_a_directory_copied_while_it_was_written_is_an_old_state_or_said_to_be_damaged(
    tmp_path: Path,
) -> None:
    """Each file as of another moment, in any order, as rsync leaves them in the middle of a run."""
    choose = random.Random(SEED)
    moments: list[dict[Path, bytes]] = []
    states: list[dict[str, Rows]] = []
    store = cox.Store(tmp_path / "live", "run")
    table = store.add_table("t", {"step": int, "thing": cox.PICKLE})
    for step in range(24):
        table.append_row({"step": step, "thing": {"step": step}})
        if step % 5 == 4:
            store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        run = tmp_path / "live" / "run"
        moments.append({path.relative_to(run): data for path, data in contents(run).items()})
        states.append(read_quickly(tmp_path / "live").rows)
    store.close()
    silent = 0
    for number in range(FLIPS // 4):
        copy = tmp_path / str(number) / "run"
        for name in sorted(set().union(*moments)):
            data = choose.choice(moments).get(name)  # at that moment it may be gone, or not there yet
            if data is not None:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes(
                    data[: choose.randrange(len(data) + 1)] if data and choose.random() < 0.05 else data
                )
        found = read_quickly(copy.parent)
        rows = found.rows.get("t", [])
        assert is_subsequence(rows, states[-1]["t"]), f"seed {SEED}, copy {number}"
        if found.error is None and not found.warnings:
            assert found.rows in [{}, *states], f"seed {SEED}, copy {number}: {found.rows}"
            silent += 1
        lost = {cell for _, cell in rows} - {path.name for path in (copy / ".table_objects").glob("*")}
        report = verify(copy)
        assert {finding.what for finding in report.findings} >= ({"object"} if lost else set())
        assert report.ok <= (found.error is None and not found.warnings)
        shutil.rmtree(copy.parent)
    assert 0 < silent < FLIPS // 4


def test_a_missing_file_is_no_change_or_said_to_be_missing(tmp_path: Path) -> None:
    store = cox.Store(tmp_path / "live", "run")
    table = store.add_table("t", {"step": int, "thing": cox.PICKLE})
    for step in range(6):
        table.append_row({"step": step, "thing": step})
        if step == 3:
            store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    whole = read_quickly(tmp_path / "live")
    for path in contents(tmp_path / "live" / "run"):
        name = path.relative_to(tmp_path / "live")
        shutil.copytree(tmp_path / "live" / "run", tmp_path / "run")
        (tmp_path / name).unlink()
        found, report = read_quickly(tmp_path), verify(tmp_path / "run")
        if path.name == layout.STORE_FILE:
            assert any("rows 0 to 3" in said for said in found.warnings)
            assert not report.ok
        elif path.suffix == layout.JOURNAL_SUFFIX:
            assert found.rows["t"] == whole.rows["t"][:4]
            assert any("is missing" in said for said in found.warnings)
        else:
            assert (found.rows, found.warnings) == (whole.rows, [])
            assert report.ok == (path.parent.name != layout.OBJECTS_DIR)
        shutil.rmtree(tmp_path / "run")
    store.close()


@pytest.mark.parametrize("copies_empty_files", [True, False])
def test_a_run_without_any_rows_left_is_not_passed_over(tmp_path: Path, *, copies_empty_files: bool) -> None:
    folded_run(tmp_path)
    (tmp_path / "run" / "store.h5").unlink()
    if not copies_empty_files:
        shutil.rmtree(tmp_path / "run" / layout.META_DIR / layout.JOURNAL_DIR)
    assert not verify(tmp_path / "run").ok
    with (
        cox.CollectionReader(tmp_path) as reader,
        pytest.raises(cox.errors.RunNotFoundError, match="store.h5"),
    ):
        reader.df("t")
    done = repair(tmp_path / "run")
    assert done.after == done.before
    assert not (tmp_path / "run" / "store.h5").exists(), "an empty store would hide what is missing"


# --- Memory and time


def lying_shape(run: layout.RunLayout) -> None:
    write_hdf5(run, nrows=2**40, chunk=1000)


def lying_chunk(run: layout.RunLayout) -> None:
    write_hdf5(run, nrows=2**27, chunk=2**27, stored=zlib.compress(bytes(80)))


def lying_count_of_rows(run: layout.RunLayout) -> None:
    with h5py.File(run.store_file, "r+") as file:
        told = json.loads(bytes(file.attrs["COX_RUN"]))
        told["tables"]["t"]["nrows"] = 2**40
        file.attrs["COX_RUN"] = np.bytes_(json.dumps(told))


def lying_lengths(run: layout.RunLayout) -> None:
    path = run.journal_file("main", 7)
    path.write_bytes(journal.HEADER_1 + (journal.MARK + b"\xff\xff\xff\x7f" + bytes(4)) * 50_000)


def lying_payloads(run: layout.RunLayout) -> None:
    payloads = [b"\xdd\xff\xff\xff\xff", b"\x93\x00\x00\xdd\x7f\xff\xff\xff", b"\xdd\0\0\0\1" * 100_000]
    data = journal.HEADER_1
    for payload in payloads:
        data += journal.MARK + struct.pack("<II", len(payload), zlib.crc32(payload, 7)) + payload
    run.journal_file("main", 7).write_bytes(data)


def write_hdf5(run: layout.RunLayout, *, nrows: int, chunk: int, stored: bytes = b"") -> None:
    """Have the table `t` be a few bytes that claim to be so many rows."""
    with h5py.File(run.store_file, "r+") as file:
        told = json.loads(bytes(file.attrs["COX_RUN"]))
        told["tables"] = {"t": {"columns": [["x", "int", False]], "places": [["x", -1]], "nrows": nrows}}
        file.attrs["COX_RUN"] = np.bytes_(json.dumps(told))
        del file["t"], file["objects"], file["_cox"]
        rows = np.dtype([("index", "<i8"), ("x", "<i8")])
        made = file.create_dataset(
            "t/table", (nrows,), rows, chunks=(chunk,), maxshape=(None,), compression="gzip"
        )
        if stored:
            made.id.write_direct_chunk((0,), stored)


@pytest.mark.parametrize(
    "lie", [lying_shape, lying_chunk, lying_count_of_rows, lying_lengths, lying_payloads]
)
def test_a_lying_header_costs_no_memory(
    tmp_path: Path, zygote: Zygote, lie: Callable[[layout.RunLayout], None]
) -> None:
    folded_run(tmp_path)
    run = layout.RunLayout(tmp_path / "run")
    lie(run)
    zygote.start("tests.crash.children:read_in_little_memory", str(run.root), 200).join()


# --- Neighbours


def test_one_damaged_run_among_a_hundred_costs_only_itself(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with cox.Store(runs, "run-000") as store:
        table = store.add_table("t", {"step": int, "thing": cox.OBJECT})
        for step in range(5):
            table.append_row({"step": step, "thing": step})
    for number in range(1, 100):
        shutil.copytree(runs / "run-000", runs / f"run-{number:03}")
    victim = runs / "run-042"
    data = (victim / "store.h5").read_bytes()
    everybody = {f"run-{number:03}" for number in range(100)}
    for damage in (
        b"",
        b"no HDF5 at all",
        data[: len(data) // 2],
        data[:1000] + bytes(len(data) - 1000),
        None,
    ):
        if damage is None:
            (victim / "store.h5").unlink()
        else:
            (victim / "store.h5").write_bytes(damage)
        with cox.CollectionReader(runs) as reader, pytest.raises(CoxError, match="run-042.*store.h5"):
            reader.df("t")
        with (
            cox.CollectionReader(runs, skip_errs=True) as reader,
            pytest.warns(cox.errors.CollectionWarning, match="run run-042 is left out") as caught,
        ):
            frame = reader.df("t")
        assert len(caught) == 1
        assert set(frame["exp_id"]) == everybody - {"run-042"}
        assert len(frame) == 99 * 5
    assert {run.root.name for run in runs_at(runs) if not verify(run.root).ok} == {"run-042"}
