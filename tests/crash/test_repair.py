"""`repair`: exactly what was damaged is lost, and whatever stops it on the way loses nothing.

The runs here are damaged in every way at once, in known places, so that it is known what has to be left.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest

import cox
from cox.errors import DamagedError, RunInUseError, RunNotFoundError, StorageError
from cox.integrity.repair import Repair, repair
from cox.integrity.verify import verify
from cox.storage import layout
from cox.storage.hdf5 import writing
from cox.testing import faults
from tests.crash.test_damage import Read, contents, folded_run, is_subsequence, read, read_quickly
from tests.crash.zygote import Zygote

ROWS = 40


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_CHUNK_BYTES", 400)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def place_in(path: Path, dataset: str, chunk: int = 0) -> tuple[int, int, int]:
    """Where the middle of a chunk is in the file, and which rows it has."""
    with h5py.File(path, "r") as file:
        found = file[dataset].id.get_chunk_info(chunk)
        rows = file[dataset].chunks[0]
        return found.byte_offset + found.size // 2, found.chunk_offset[0], found.chunk_offset[0] + rows


def steps(found: Read, table: str = "t") -> list[Any]:
    return [row[0] for row in found.rows.get(table, [])]


# --- What is lost, and what is not


@pytest.mark.parametrize("chunk", [0, 2, -1])
def test_a_damaged_chunk_costs_its_rows_and_no_others(tmp_path: Path, chunk: int) -> None:
    path = folded_run(tmp_path, ROWS)
    whole = read_quickly(tmp_path)
    with h5py.File(path, "r") as file:
        chunk %= file["t/table"].id.get_num_chunks()
    at, start, stop = place_in(path, "t/table", chunk)
    stop = min(stop, ROWS)
    flip(path, at)
    (finding,) = verify(tmp_path / "run").findings
    assert finding.file == "store.h5"
    assert f"table 't': rows {start} to {stop - 1} of {ROWS} cannot be read" in finding.problem
    done = repair(tmp_path / "run")
    assert done.lost == {"t": stop - start}
    assert done.kept == {"t": ROWS - (stop - start), "objects": 3}
    after = read_quickly(tmp_path)
    assert after.rows["t"] == whole.rows["t"][:start] + whole.rows["t"][stop:]
    assert after.rows["objects"] == whole.rows["objects"]


@pytest.mark.parametrize(
    ("sidecar", "column", "holes"),
    [
        ("missing_1", 1, []),  # loss: its missing cells are its only nan
        ("missing_2", 2, []),
        ("missing_4", 4, []),
        ("exact_2", 2, [step for step in range(ROWS) if step % 3]),  # n: all beyond 2**53
        ("exact_4", 4, [step for step in range(ROWS) if step % 3]),  # note: any may have ended in NUL
    ],
)
def test_a_damaged_sidecar_costs_no_row(tmp_path: Path, sidecar: str, column: int, holes: list[int]) -> None:
    path = folded_run(tmp_path, ROWS)
    whole = read_quickly(tmp_path)
    flip(path, place_in(path, f"_cox/0/{sidecar}")[0])
    with pytest.raises(DamagedError):
        cox.Store(tmp_path, "run", mode="r")["t"].df  # noqa: B018
    assert repair(tmp_path / "run").after.ok
    for step, (row, before) in enumerate(zip(read_quickly(tmp_path).rows["t"], whole.rows["t"], strict=True)):
        assert row == tuple(
            None if at == column and step in holes else cell for at, cell in enumerate(before)
        )


def test_a_damaged_table_costs_no_other(tmp_path: Path) -> None:
    path = folded_run(tmp_path, ROWS)
    whole = read_quickly(tmp_path)
    with h5py.File(path, "r") as file:
        at = h5py.h5o.get_info(file["t/table"].id).addr
    flip(path, at + 20)
    assert any(f"all its {ROWS} rows" in finding.problem for finding in verify(tmp_path / "run").findings)
    done = repair(tmp_path / "run")
    assert (done.kept, done.lost) == ({"objects": 3, "t": 0}, {"t": ROWS})
    assert read_quickly(tmp_path).rows == {"objects": whole.rows["objects"]}


def test_of_an_unreadable_store_h5_the_journals_are_left(tmp_path: Path) -> None:
    run = live_run_with_a_fold(tmp_path)
    run.store_file.write_bytes(b"no HDF5")
    done = repair(run.root)
    assert done.after.ok
    assert steps(read_quickly(tmp_path)) == [ROWS, ROWS + 1]
    with cox.Store(tmp_path, "run") as store:
        store["t"].append_row({"step": 99, "text": ""})
    assert steps(read_quickly(tmp_path)) == [ROWS, ROWS + 1, 99]


def test_a_user_s_own_data_in_store_h5_stays(tmp_path: Path) -> None:
    path = folded_run(tmp_path, ROWS)
    with h5py.File(path, "r+") as file:
        file["mine"] = [1, 2, 3]
    flip(path, place_in(path, "t/table", 1)[0])
    assert repair(tmp_path / "run").after.ok
    with h5py.File(path, "r") as file:
        assert list(file["mine"]) == [1, 2, 3]


def test_a_user_s_own_data_is_said_to_be_lost_if_it_is(tmp_path: Path) -> None:
    path = folded_run(tmp_path, ROWS)
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file["mine"] = [1, 2, 3]
        address = h5py.h5o.get_info(file["mine"].id).addr
    flip(path, address + 20)
    assert any("'mine' cannot be read" in finding.problem for finding in verify(tmp_path / "run").findings)
    done = repair(tmp_path / "run")
    assert done.after.ok
    assert (done.kept, done.lost) == ({"t": ROWS, "objects": 3}, {})


def test_text_that_is_none_is_found_and_cannot_be_repaired(tmp_path: Path) -> None:
    """Only other programs can have written it: it has its checksum."""
    path = folded_run(tmp_path, ROWS)
    with h5py.File(path, "r+") as file:
        rows = file["objects/table"][:]
        rows["thing"][1] = b"\xff\xfe"
        file["objects/table"][:] = rows
    (finding,) = verify(tmp_path / "run").findings
    assert "table 'objects', column 'thing': text that is no UTF-8" in finding.problem
    done = repair(tmp_path / "run")
    assert done.after.findings == [finding]
    assert done.originals is None


def test_a_store_of_upstream_is_salvaged_too(tmp_path: Path) -> None:
    golden = next((Path(__file__).parents[1] / "compat/golden/stores").glob("*/everything"))
    shutil.copytree(golden, tmp_path / "run")
    before = read_quickly(tmp_path)
    assert verify(tmp_path / "run").ok
    with h5py.File(tmp_path / "run" / "store.h5", "r") as file:
        address = h5py.h5o.get_info(file["types/table"].id).addr
    data = bytearray((tmp_path / "run" / "store.h5").read_bytes())
    data[address : address + 16] = bytes(16)
    (tmp_path / "run" / "store.h5").write_bytes(data)
    assert any("types" in finding.problem for finding in verify(tmp_path / "run").findings)
    assert repair(tmp_path / "run").after.ok
    assert read_quickly(tmp_path).rows == {
        name: rows for name, rows in before.rows.items() if name != "types"
    }


def live_run_with_a_fold(folder: Path, **options: Any) -> layout.RunLayout:
    """A run as a killed process leaves it: `ROWS` rows in store.h5, two in the journal."""
    store = cox.Store(folder / "live", "run", **options)
    table = store.add_table("t", {"step": int, "text": str})
    for step in range(ROWS):
        table.append_row({"step": step, "text": f"row {step}" * 9})
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    for step in (ROWS, ROWS + 1):
        table.append_row({"step": step, "text": ""})
    shutil.copytree(folder / "live" / "run", folder / "run")
    store.close()
    return layout.RunLayout(folder / "run")


@pytest.mark.parametrize("chunk", [0, 1, -1])
def test_what_was_rewound_does_not_come_back(tmp_path: Path, chunk: int) -> None:
    """The rewind counts rows, of which some are lost now: better one more is gone than one is back."""
    store = cox.Store(tmp_path / "live", "run")
    table = store.add_table("t", {"step": int, "text": str})
    for step in range(ROWS):
        table.append_row({"step": step, "text": f"row {step}" * 9})
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    store.rewind("t", 30, purge_tensorboard=False)
    table.append_row({"step": 30, "text": "again"})
    shutil.copytree(tmp_path / "live" / "run", tmp_path / "run")
    store.close()
    path = tmp_path / "run" / "store.h5"
    with h5py.File(path, "r") as file:
        chunk %= file["t/table"].id.get_num_chunks()
    at, start, stop = place_in(path, "t/table", chunk)
    flip(path, at)
    assert any("rewound" in finding.problem for finding in verify(tmp_path / "run").findings)
    assert repair(tmp_path / "run").after.ok
    left = [step for step in range(30) if not start <= step < stop]
    found = steps(read_quickly(tmp_path))
    assert found[-1] == 30
    if stop <= 30:
        assert found[:-1] == left
    else:  # nobody knows how many of the lost ones were to be dropped
        assert is_subsequence([(step,) for step in found[:-1]], [(step,) for step in left])
    with cox.Store(tmp_path, "run") as going_on:
        assert going_on["t"].nrows == len(found)
        going_on["t"].append_row({"step": 31, "text": ""})
    assert steps(read_quickly(tmp_path)) == [*found, 31]


def test_rows_of_several_writers_are_salvaged(tmp_path: Path) -> None:
    stores = [cox.Store(tmp_path / "live", "run", rank=rank) for rank in (0, 1)]
    for rank, store in enumerate(stores):
        store.add_table("t", {"step": int})
        for step in range(5):
            store["t"].append_row({"step": 10 * rank + step})
    shutil.copytree(tmp_path / "live" / "run", tmp_path / "run")
    for store in stores:
        store.close()
    (path,) = (tmp_path / "run").rglob("rank-1-*.log")
    flip(path, path.stat().st_size - 2)
    done = repair(tmp_path / "run")
    assert done.after.ok
    assert done.kept == {"t": 9}
    assert set(steps(read_quickly(tmp_path))) < {*range(5), *range(10, 15)}


def test_a_row_whose_file_is_lost_stays_and_is_reported(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run") as store:
        table = store.add_table("t", {"step": int, "thing": cox.PICKLE})
        for step in range(3):
            table.append_row({"step": step, "thing": [step]})
    lost = sorted((tmp_path / "run" / layout.OBJECTS_DIR).iterdir())[0]
    lost.unlink()
    before = contents(tmp_path / "run")
    done = repair(tmp_path / "run")
    assert done.after == done.before
    (finding,) = done.after.findings
    assert (finding.what, finding.file) == ("object", f"{layout.OBJECTS_DIR}/{lost.name}")
    assert "table 't', column 'thing', row" in finding.problem
    assert contents(tmp_path / "run") == before, "there is nothing to be done"
    assert steps(read_quickly(tmp_path)) == [0, 1, 2]


def test_events_behind_a_damaged_one_are_shown_again(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"x": float})
        for step in range(20):
            store.log_table_and_tb("t", {"x": step / 3})
            store["t"].flush_row()
    (path,) = (tmp_path / "run" / "tensorboard").iterdir()
    data = path.read_bytes()
    flip(path, len(data) // 2)

    def shown() -> list[int]:
        return [event.step for event in EventFileLoader(str(path)).Load() if event.HasField("summary")]

    assert len(shown()) < 20
    done = repair(tmp_path / "run")
    assert done.after.ok
    assert len(shown()) == 19
    assert set(shown()) < set(range(20))
    assert done.originals is not None
    assert len(list(done.originals.rglob("*tfevents*"))) == 1


# --- What it leaves alone


def test_a_note_beside_event_files_is_not_one(tmp_path: Path) -> None:
    text = "tfevents: the second file is the best"
    with cox.Store(tmp_path, "run") as store:
        store.tensorboard.add_scalar("x", 1.0, 0)
        note = Path(store.tb_dir, "notes on tfevents.md")
        note.write_text(text)
    assert repair(tmp_path / "run").before.ok
    assert note.read_text() == text


def test_a_whole_run_is_left_untouched(tmp_path: Path) -> None:
    folded_run(tmp_path, ROWS)
    live_run_with_a_fold(tmp_path / "killed")
    for run in (tmp_path / "run", tmp_path / "killed" / "run"):
        before = {
            path: (path.stat(), path.is_file() and path.read_bytes()) for path in [run, *run.rglob("*")]
        }
        done = repair(run)
        assert done.before.ok
        assert done.originals is None
        after = {path: (path.stat(), path.is_file() and path.read_bytes()) for path in [run, *run.rglob("*")]}
        assert {path: (stat.st_mtime_ns, data) for path, (stat, data) in before.items()} == {
            path: (stat.st_mtime_ns, data) for path, (stat, data) in after.items()
        }


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    path = folded_run(tmp_path, ROWS)
    at, start, stop = place_in(path, "t/table", 1)
    flip(path, at)
    before = contents(tmp_path / "run")
    done = repair(tmp_path / "run", dry_run=True)
    assert (done.kept, done.lost) == ({"t": ROWS - (stop - start), "objects": 3}, {"t": stop - start})
    assert contents(tmp_path / "run") == before
    assert list((tmp_path / "run" / layout.META_DIR).glob(f"{layout.DAMAGED_PREFIX}*")) == []


def test_a_run_that_is_being_written_is_refused(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"step": int}).append_row({"step": 1})
        (path,) = (tmp_path / "run").rglob("*.log")
        with path.open("ab") as file:
            file.write(b"garbage " * 9)
        before = contents(tmp_path / "run")
        with pytest.raises(RunInUseError, match=rf"process {os.getpid()} on host"):
            repair(tmp_path / "run")
        assert contents(tmp_path / "run") == before
    assert steps(read_quickly(tmp_path)) == [1]


def test_a_run_of_a_newer_cox_is_not_for_this_one_to_repair(tmp_path: Path) -> None:
    path = folded_run(tmp_path, ROWS)
    flip(path, 100)
    (tmp_path / "run" / ".cox" / "run.json").write_text('{"format": 9}')
    before = contents(tmp_path / "run")
    assert [finding.what for finding in repair(tmp_path / "run").after.findings] == ["format"]
    assert contents(tmp_path / "run") == before


def test_what_the_system_does_not_give_out_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded_run(tmp_path, ROWS)

    really = os.open

    def refused(path: Any, *args: Any, **options: Any) -> int:
        if os.fspath(path).endswith("store.h5"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return really(path, *args, **options)

    monkeypatch.setattr(os, "open", refused)
    done = repair(tmp_path / "run")
    assert [finding.what for finding in done.after.findings] == ["refused"]
    assert done.originals is None
    with pytest.raises(StorageError, match="cannot read the store: Permission denied"):
        cox.Store(tmp_path, "run", mode="r")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError):
        repair(tmp_path)


# --- Whatever stops it


def damaged_in_every_way(folder: Path) -> tuple[layout.RunLayout, Read]:
    """A run of a killed process with damage in all of its files, and what should be left of it."""
    run = live_run_with_a_fold(folder)
    whole = read_quickly(folder)
    at, start, stop = place_in(run.store_file, "t/table", 1)
    flip(run.store_file, at)
    (path,) = run.journal_dir.glob("*.log")
    flip(path, path.stat().st_size // 2)  # in the second declaration
    run.run_file.write_bytes(b"{")
    store = cox.Store(folder / "other", "run")
    for step in range(9):
        store.tensorboard.add_scalar("x", step, step)
    store.close()
    (events,) = Path(store.tb_dir).iterdir()
    shutil.copy(events, run.tensorboard_dir)
    flip(run.tensorboard_dir / events.name, events.stat().st_size // 2)
    return run, Read({"t": whole.rows["t"][:start] + whole.rows["t"][stop:]}, [])


def originals_of(run: layout.RunLayout) -> list[tuple[Path, bytes]]:
    files = [run.store_file, run.run_file, *run.journal_dir.glob("*.log"), *run.tensorboard_dir.iterdir()]
    return [(path.relative_to(run.root), path.read_bytes()) for path in files]


def check_stopped(run: layout.RunLayout, originals: list[tuple[Path, bytes]], left: Read) -> None:
    """Every original is in its place or kept; the rows are as they were, or as they are to be."""
    kept = list(run.meta_dir.glob(f"{layout.DAMAGED_PREFIX}*"))
    for name, data in originals:
        places = [directory / name for directory in (run.root, *kept)]
        assert any(path.exists() and path.read_bytes() == data for path in places), name
    assert run.store_file.exists()
    found = read_quickly(run.root.parent)
    if found.error is None:
        assert found.rows == left.rows
    else:
        assert run.store_file.read_bytes() == dict(originals)[Path(layout.STORE_FILE)]


def check_finished(run: layout.RunLayout, originals: list[tuple[Path, bytes]], left: Read) -> None:
    check_stopped(run, originals, left)
    done = repair(run.root)
    assert done.after.ok, done.after
    check_stopped(run, originals, left)
    found = read(run.root.parent)
    assert (found.rows, found.warnings, found.error) == (left.rows, [], None)
    with cox.Store(run.root.parent, "run") as store:
        assert store["t"].nrows == len(left.rows["t"])
    assert [path for path in run.root.rglob("*") if path.name.startswith(layout.TEMPORARY_PREFIX)] == []


@pytest.mark.parametrize("how", ["after", "within"])
def test_a_kill_at_any_call_loses_nothing(zygote: Zygote, tmp_path: Path, how: str) -> None:
    run, left = damaged_in_every_way(tmp_path / "damaged")
    originals = originals_of(run)
    for call in range(1000):
        folder = tmp_path / str(call)
        shutil.copytree(run.root, folder / "run")
        copy = layout.RunLayout(folder / "run")
        child = zygote.start("tests.crash.children:repair_and_die", str(copy.root), call, how)
        if not child.was_killed():
            break
        check_stopped(copy, originals, left)
        check_finished(copy, originals, left)
        shutil.rmtree(folder)
    assert call > (20 if how == "after" else 1)


@pytest.mark.parametrize("how", ["before", "half"])
def test_a_disk_that_fails_at_any_call_loses_nothing(tmp_path: Path, how: str) -> None:
    run, left = damaged_in_every_way(tmp_path / "damaged")
    originals = originals_of(run)

    def attempt(folder: Path, failing: int) -> tuple[Repair | None, list[str]]:
        shutil.copytree(run.root, folder / "run")
        with faults.intercepted(faults.Failure.at(failing, errno.ENOSPC, how)) as names:
            try:
                return repair(folder / "run"), names
            except StorageError as error:
                assert "free some space" in str(error)
                return None, names

    done, calls = attempt(tmp_path / "whole", -1)
    assert done is not None
    assert done.after.ok
    for number, name in enumerate(calls):
        folder = tmp_path / str(number)
        done, _ = attempt(folder, number)
        assert done is None or name in ("unlink", "sync_directory"), f"{name} failed, and nobody was told"
        copy = layout.RunLayout(folder / "run")
        check_stopped(copy, originals, left)
        check_finished(copy, originals, left)


def test_without_hard_links_originals_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, left = damaged_in_every_way(tmp_path)
    originals = originals_of(run)

    def no_links(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert repair(run.root).after.ok
    check_finished(run, originals, left)
