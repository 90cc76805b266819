"""A disk that fails: full, broken or read-only, at every call that changes something.

A session runs once for each of its calls, and that call fails. The operation under way raises a
StorageError (or, at fold and close, logs a warning), the run is as if it had not been tried, and then, with
the disk as good as new, it is tried again and the session goes on to its end.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.errors import CoxError, RowError, StorageError, StorageWarning
from cox.storage import fs, layout, writer
from cox.tensorboard.eventfile import EventFile
from cox.testing import faults, invariants, model
from tests.crash.test_sigkill import SHORT, a_bit_of_everything

OPS = model.script(a_bit_of_everything(), SHORT)
STATES = model.states(OPS)
#: Folds now and then by itself.
FOLD_AT = 1500


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FOLD_AT", FOLD_AT)
    for name in ("fsync", "fdatasync"):  # `faults` fails these; to wait for a real disk shows nothing here
        monkeypatch.setattr(os, name, lambda fd: None)


def run_session(folder: Path, disk: faults.Failure, **options: Any) -> list[CoxError]:
    """The session, with each operation tried again after it failed. Returns the errors."""
    errors: list[CoxError] = []
    session: model.Session | None = None
    done = looked = 0
    while done < len(OPS):
        op = OPS[done]
        try:
            if session is None:
                session = model.Session(folder, "run", OPS, done, **options)
            session.apply(op)
        except CoxError as error:
            errors.append(error)
            assert len(errors) == 1, "only one call fails"
            disk.fails = lambda *_: False  # there is space again
            if session is None or op.kind == "reopen":
                session = None
                assert_run_is(folder, STATES[done], new=done == 0)
            else:
                assert_run_is(folder, STATES[done])
            continue
        done += 1
        if len(disk.failed) > looked:  # also where nothing was raised, because it could wait
            looked = len(disk.failed)
            assert_run_is(folder, STATES[done])
    assert session is not None
    session.store.close()
    return errors


def assert_run_is(folder: Path, state: model.State, *, new: bool = False) -> None:
    if new:
        assert list(folder.iterdir()) == [], "a run that could not be made leaves nothing"
    else:
        assert invariants.observe(folder, "run") == state


def calls_of_a_session(folder: Path, **options: Any) -> list[str]:
    folder.mkdir()
    never = faults.Failure(lambda *_: False, 0)
    with faults.intercepted(never) as names:
        run_session(folder, never, **options)
    return names


def check_error(error: CoxError, folder: Path, code: int) -> None:
    assert isinstance(error, StorageError), repr(error)
    assert error.errno == code
    assert str(folder) in str(error.filename), "it names the path"
    assert os.strerror(code) in str(error)
    if code in (errno.ENOSPC, errno.EDQUOT):
        assert "free some space" in str(error), "it names the remedy"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "how", "options"),
    [
        (errno.ENOSPC, "before", {}),
        (errno.ENOSPC, "half", {}),
        (errno.EIO, "before", {"sync": "row"}),
        (errno.EDQUOT, "before", {}),
    ],
    ids=["full", "full-half-way", "broken-sync-row", "quota"],
)
def test_every_call_may_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, code: int, how: str, options: dict[str, Any]
) -> None:
    calls = calls_of_a_session(tmp_path / "whole", **options)
    assert len(calls) > 60
    expected = {*faults.FUNCTIONS, "pwrite", "new_file", "write store.h5"}
    assert set(calls) >= (expected if options else expected - {"sync_data"})
    for number, name in enumerate(calls):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        caplog.clear()
        disk = faults.Failure(lambda at, _, number=number: at == number, code, how)
        with caplog.at_level(logging.WARNING, logger="cox"), faults.intercepted(disk):
            errors = run_session(folder, disk, **options)
        assert disk.failed, name
        for error in errors:
            check_error(error, folder, code)
        if not errors and name in ("write store.h5", "sync_file", "rename"):
            assert str(folder) in caplog.text, f"{name} failed, and nobody was told"
        assert invariants.observe(folder, "run") == STATES[-1], f"{name}, call {number}"
        with cox.Store(folder, "run") as store:
            assert set(store.tables) == set(STATES[-1])
        assert invariants.observe(folder, "run") == STATES[-1]
        assert invariants.leftovers(folder / "run") == [], f"{name}, call {number}"


@pytest.mark.parametrize("name", ["pwrite", "sync_data", "rename", "sync_file", "write store.h5", "new_file"])
def test_a_disk_that_stays_full_for_a_while(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    full = False
    disk = faults.Failure(lambda _, called: full and called == name, errno.ENOSPC)
    with faults.intercepted(disk), caplog.at_level(logging.CRITICAL, logger="cox"):
        store = cox.Store(tmp_path, "run", sync="row")
        store.add_table("t", {"step": int, "file": cox.PICKLE})
        stored = []
        for step in range(60):
            full = 20 <= step < 40
            try:
                store["t"].append_row({"step": step, "file": [step]})
                stored.append(step)
            except StorageError as error:
                assert full
                check_error(error, tmp_path, errno.ENOSPC)
            assert store["t"].nrows == len(stored)
            assert store["t"].df["step"].tolist() == stored
        store.close()
    assert stored[:20] == list(range(20))
    assert stored[-20:] == list(range(40, 60))
    with cox.Store(tmp_path, "run", mode="r") as store:
        assert store["t"].df["step"].tolist() == stored
        assert [store["t"].get_pickle(uid) for uid in store["t"].df["file"]] == [[step] for step in stored]
    assert len(list((tmp_path / "run" / layout.OBJECTS_DIR).iterdir())) == len(stored), "no orphans"


@pytest.mark.parametrize("name", ["pwrite", "sync_data", "rename", "new_file"])
@pytest.mark.parametrize("way", ["append_row", "update_row and flush_row", "log_table_and_tb"])
def test_on_error_warn_goes_on_without_the_rows_that_are_refused(tmp_path: Path, name: str, way: str) -> None:
    full = False
    disk = faults.Failure(lambda _, called: full and called == name, errno.ENOSPC)

    def session() -> int:
        nonlocal full
        store = cox.Store(tmp_path, "run", sync="row", on_error="warn")
        things = store.add_table("t", {"step": int, "file": cox.PICKLE})
        numbers = store.add_table("numbers", {"step": int})
        for step in range(60):
            full = 20 <= step < 40
            if way == "append_row":
                things.append_row({"step": step, "file": [step]})
                numbers.append_row({"step": step})
                continue
            things.update_row({"file": [step]})
            for table in (things, numbers):
                if way == "log_table_and_tb":
                    store.log_table_and_tb(table.name, {"step": step})
                else:
                    table.update_row({"step": step})
                table.flush_row()
        store.close()
        return store.not_stored

    with faults.intercepted(disk), pytest.warns(StorageWarning) as told:
        lost = session()
    needed = {"t": True, "numbers": name in ("pwrite", "sync_data")}
    assert lost == 20 * sum(needed.values())
    expected = {
        table: [step for step in range(60) if not (gone and 20 <= step < 40)]
        for table, gone in needed.items()
    }
    counts = [str(warning.message) for warning in told if "not stored, now of table" in str(warning.message)]
    assert len(counts) == lost.bit_length(), "of the first, and whenever their number has doubled"
    assert counts[0].startswith("a row of run")
    assert counts[-1].startswith(f"{1 << (lost.bit_length() - 1)} rows of run")
    assert all("No space left" in text and str(tmp_path) in text for text in counts)
    assert json.loads((tmp_path / "run" / ".cox" / "run.json").read_text())["not_stored"] == lost
    with cox.Store(tmp_path, "run", mode="r") as store:
        for table, steps in expected.items():
            assert store[table].df["step"].tolist() == steps
        assert [store["t"].get_pickle(uid) for uid in store["t"].df["file"]] == [[s] for s in expected["t"]]
    assert len(list((tmp_path / "run" / layout.OBJECTS_DIR).iterdir())) == len(expected["t"]), "no orphans"


def test_on_error_warn_says_what_is_wrong_with_a_row_all_the_same(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run", on_error="warn") as store:
        table = store.add_table("t", {"step": int})
        for wrong in ({"step": None}, {}, {"step": 1, "other": 2}):
            with pytest.raises(RowError):
                table.append_row(wrong)
        assert store.not_stored == 0
        table.append_row({"step": 1})
    assert "not_stored" not in json.loads((tmp_path / "run" / ".cox" / "run.json").read_text())
    with pytest.raises(ValueError, match="on_error='ignore': choose 'raise', or 'warn'"):
        cox.Store(tmp_path, "run", on_error="ignore")


def test_on_error_warn_stores_a_row_whose_point_is_refused(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run", on_error="warn") as store:
        table = store.add_table("t", {"x": float})
        with pytest.MonkeyPatch.context() as patch:

            def full(self: Any, event: Any) -> None:
                raise StorageError(errno.ENOSPC, "no space for events")

            patch.setattr(EventFile, "add_event", full)
            with pytest.warns(StorageWarning, match="no space for events"):
                store.log_table_and_tb("t", {"x": 1})
            table.flush_row()
        assert store.not_stored == 0
        assert table.df["x"].tolist() == [1.0]


def test_a_failing_fold_keeps_the_journal_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = cox.Store(tmp_path, "run")
    store.add_table("t", {"step": int}).append_row({"step": 1})
    disk = faults.Failure(lambda _, name: name == "write store.h5", errno.ENOSPC, "half")
    with faults.intercepted(disk), caplog.at_level(logging.WARNING, logger="cox"):
        store.close()
    assert str(tmp_path / "run") in caplog.text
    assert "No space left" in caplog.text
    assert len(list(layout.RunLayout(tmp_path / "run").journal_dir.glob("*.log"))) == 1
    assert invariants.leftovers(tmp_path / "run")[0].startswith(".cox/journal/"), "and nothing else"
    with cox.Store(tmp_path, "run") as store:
        assert store["t"].df["step"].tolist() == [1]
    assert invariants.leftovers(tmp_path / "run") == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), RuntimeError("unable to flush file's cached data")]
)
def test_hdf5_failing_in_its_own_way_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    # h5py reports a full disk as OSError while it writes, and as RuntimeError while it closes
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cox.storage.hdf5.write", fail)
    store = cox.Store(tmp_path, "run")
    table = store.add_table("t", {"step": int, "text": str})
    for step in range(100):
        table.append_row({"step": step, "text": "x" * 50})
    assert table.nrows == 100
    with caplog.at_level(logging.WARNING, logger="cox"):
        store.close()
    assert str(tmp_path / "run") in caplog.text
    monkeypatch.undo()
    with cox.Store(tmp_path, "run") as store:
        assert store["t"].df["step"].tolist() == list(range(100))


def test_a_journal_that_cannot_be_removed_after_the_fold_loses_nothing(tmp_path: Path) -> None:
    # of another rank, which is dead: the fold removed our own journal before it failed
    store = cox.Store(tmp_path, "run", rank=0)
    store.add_table("t", {"step": int}).append_row({"step": 0})
    other = cox.Store(tmp_path, "run", rank=1)
    other.add_table("t", {"step": int}).append_row({"step": 100})
    other._writer.abandon()  # type: ignore[union-attr] # as dead as a process can be in here

    def is_others(path: Path) -> bool:
        return path.name.startswith("rank-1-")

    unlink = fs.unlink

    def fail(path: Path) -> None:
        if is_others(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        unlink(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs, "unlink", fail)
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    for step in (1, 2):
        store["t"].append_row({"step": step})
    with cox.Store(tmp_path, "run", mode="r") as reader:
        assert sorted(reader["t"].df["step"]) == [0, 1, 2, 100]
    store.close()
    with cox.Store(tmp_path, "run", mode="r") as reader:
        assert sorted(reader["t"].df["step"]) == [0, 1, 2, 100]


def test_a_row_that_could_not_be_synced_is_no_row(tmp_path: Path) -> None:
    store = cox.Store(tmp_path, "run", sync="row")
    store.add_table("t", {"step": int}).append_row({"step": 0})
    later = store.add_table("a table with a long name", {"x": float, "y": str})
    disk = faults.Failure(lambda _, name: name == "sync_data", errno.EIO)
    with faults.intercepted(disk):
        with pytest.raises(StorageError):
            later.append_row({"x": 0.0, "y": "a long text, longer than the next record"})
        with pytest.raises(StorageError):
            store["t"].append_row({"step": 99})
        with pytest.raises(StorageError):
            store.rewind("t", 0, purge_tensorboard=False)
    assert invariants.observe(tmp_path, "run")["t"][1] == [{"step": 0}]
    store["t"].append_row({"step": 1})
    assert set(invariants.observe(tmp_path, "run")) == {"t"}
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    for step in (2, 3):
        store["t"].append_row({"step": step})
    store.rewind("t", 3, purge_tensorboard=False)
    store["t"].append_row({"step": 4})
    store.close()
    assert invariants.observe(tmp_path, "run") == {"t": (("step",), [{"step": s} for s in (0, 1, 2, 4)])}


def test_an_interrupted_write_is_taken_back(tmp_path: Path) -> None:
    """Ctrl-C between the write and the return: the row was never acknowledged."""
    store = cox.Store(tmp_path, "run")
    table = store.add_table("t", {"step": int, "text": str})
    table.append_row({"step": 0, "text": ""})

    def interrupt(number: int, name: str, do: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        done = do()
        if name == "pwrite":
            raise KeyboardInterrupt
        return done

    with faults.intercepted(interrupt), pytest.raises(KeyboardInterrupt):
        table.append_row({"step": 1, "text": "a long text, and so a long record"})
    table.append_row({"step": 2, "text": ""})
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    table.append_row({"step": 3, "text": ""})
    with faults.intercepted(interrupt), pytest.raises(KeyboardInterrupt):
        store.rewind("t", 0, purge_tensorboard=False)
    table.append_row({"step": 4, "text": ""})
    store.close()
    _, rows = invariants.observe(tmp_path, "run")["t"]
    assert [row["step"] for row in rows] == [0, 2, 3, 4]


# --- Real disks


def mounted(folder: Path, *how: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *how, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        gc.collect()
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    yield from mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "none")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Any]]:
    """Makes a folder read-only while a block runs. Root may write wherever permissions forbid it."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")

    @contextmanager
    def made(folder: Path) -> Iterator[None]:
        mount = mounted(folder, "--bind", str(folder))
        next(mount)
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True, capture_output=True)
            yield
        finally:
            next(mount, None)

    yield made


def fill(disk: Path, *, leave: int = 0) -> Path:
    """Fill a disk up; returns what to remove to have space again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - leave))
    return filler


@pytest.fixture
def big_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "FOLD_AT", 1 << 30)


@pytest.mark.usefixtures("big_folds")
def test_a_really_full_disk(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = cox.Store(small_disk, "run")
    table = store.add_table("t", {"step": int, "noise": str})
    filler = fill(small_disk, leave=300_000)
    steps = []
    with pytest.raises(StorageError, match="free some space") as refusal:
        for step in range(100_000):
            table.append_row({"step": step, "noise": os.urandom(200).hex()})
            steps.append(step)
    check_error(refusal.value, small_disk, errno.ENOSPC)
    assert 100 < len(steps) < 2000
    assert table.df["step"].tolist() == steps
    # closing a run cannot fold it now, and must not fail for it
    with caplog.at_level(logging.WARNING, logger="cox"):
        store.close()
    assert str(small_disk / "run") in caplog.text
    with cox.Store(small_disk, "run", mode="r") as reader:
        assert reader["t"].df["step"].tolist() == steps
    filler.unlink()
    with cox.Store(small_disk, "run") as store:
        store["t"].append_row({"step": -1, "noise": ""})
    with cox.Store(small_disk, "run", mode="r") as reader:
        assert reader["t"].df["step"].tolist() == [*steps, -1]
    assert invariants.leftovers(small_disk / "run") == []


def test_a_run_that_finds_the_disk_full_leaves_no_half_of_it(small_disk: Path) -> None:
    filler = fill(small_disk)
    for name in (None, "named"):
        with pytest.raises(StorageError, match="free some space"):
            cox.Store(small_disk, name)
    assert list(small_disk.iterdir()) == [filler]
    filler.unlink()
    with cox.Store(small_disk, "named") as store:
        store.add_table("t", {"step": int}).append_row({"step": 1})


@pytest.mark.usefixtures("big_folds")
def test_objects_on_a_full_disk(small_disk: Path) -> None:
    store = cox.Store(small_disk, "run")
    table = store.add_table("t", {"thing": cox.PICKLE})
    table.append_row({"thing": b"small"})
    filler = fill(small_disk, leave=100_000)
    with pytest.raises(StorageError, match="free some space"):
        table.append_row({"thing": os.urandom(400_000)})
    objects = list((small_disk / "run" / layout.OBJECTS_DIR).iterdir())
    assert len(objects) == 1, "half an object is removed again"
    table.append_row({"thing": os.urandom(1000)})
    filler.unlink()
    table.append_row({"thing": os.urandom(400_000)})
    store.close()
    with cox.Store(small_disk, "run", mode="r") as reader:
        assert [len(reader["t"].get_pickle(uid)) for uid in reader["t"].df["thing"]] == [5, 1000, 400_000]


def test_a_read_only_folder(tmp_path: Path, read_only: Callable[[Path], Any]) -> None:
    with cox.Store(tmp_path / "runs", "old") as store:
        store.add_table("t", {"step": int}).append_row({"step": 1})
    with read_only(tmp_path / "runs"):
        for name in ("old", "new"):
            with pytest.raises(
                StorageError, match="choose another directory, or open with mode='r'"
            ) as refusal:
                cox.Store(tmp_path / "runs", name)
            assert str(tmp_path / "runs") in str(refusal.value.filename)
        with cox.Store(tmp_path / "runs", "old", mode="r") as reader:
            assert reader["t"].df["step"].tolist() == [1]
        with cox.CollectionReader(tmp_path / "runs") as reader:
            assert len(reader.df("t")) == 1
    assert os.listdir(tmp_path / "runs") == ["old"]


def test_a_folder_that_turns_read_only(tmp_path: Path, read_only: Callable[[Path], Any]) -> None:
    store = cox.Store(tmp_path / "runs", "run")
    table = store.add_table("t", {"step": int})
    table.append_row({"step": 1})
    with read_only(tmp_path / "runs"):
        # its journal is open, and goes on; whatever wants a new file is refused
        with pytest.raises(StorageError, match="read-only"):
            cox.Store(tmp_path / "runs", "run", rank=1)
        assert table.df["step"].tolist() == [1]
    table.append_row({"step": 2})
    store.close()
    assert invariants.observe(tmp_path / "runs", "run")["t"][1] == [{"step": 1}, {"step": 2}]


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(StorageError, match="file") as refusal:
            cox.Store(folder, "run")
        assert str(tmp_path / "file") in str(refusal.value.filename)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- No descriptors left


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many files can be opened, and no more."""
    gc.collect()  # what other tests left open must not be closed meanwhile
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # the limit is on the number, not on how many: fill the gaps below it
    filled = [os.open(os.devnull, os.O_RDONLY)]
    in_use = {int(name) for name in os.listdir("/proc/self/fd")}
    while len(in_use) < max(in_use) + 1:
        filled.append(os.open(os.devnull, os.O_RDONLY))
        in_use = {int(name) for name in os.listdir("/proc/self/fd")} | {filled[-1]}
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(filled) + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filled:
            os.close(fd)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors by /proc, as Linux has it")
@pytest.mark.parametrize("count", range(10))
def test_a_program_that_has_run_out_of_descriptors(tmp_path: Path, count: int) -> None:
    """Whatever could be stored is; all else is a StorageError that says how to get more."""
    rows: list[int] = []
    schema = {"step": int, "thing": cox.PICKLE}
    with cox.Store(tmp_path, "open") as opened:
        table = opened.add_table("t", schema)
        table.append_row({"step": 0, "thing": [0]})
        opened.writer, table.df  # noqa: B018 - they import what they need
        with cox.Store(tmp_path, "warm"):
            pass
        refused: list[StorageError] = []

        def tried(do: Callable[[], Any]) -> Any:
            try:
                return do()
            except StorageError as error:
                refused.append(error)

        with descriptors_left(count):
            for step in range(1, 4):
                tried(
                    lambda step=step: (table.append_row({"step": step, "thing": [step]}), rows.append(step))
                )
                table._drop_working_row()
            tried(lambda: table.df)
            tried(lambda: opened.writer.add_scalar("x", 1.0, 1))
            late = tried(lambda: cox.Store(tmp_path, "late"))
            if late is not None:
                other = late.add_table("t", schema)
                tried(lambda: other.append_row({"step": 1, "thing": [1]}))
                other._drop_working_row()
                late.close()
        for error in refused:
            assert error.errno == errno.EMFILE, error
            assert "ulimit -n" in str(error)
            assert str(tmp_path) in str(error.filename)
        assert refused or count > 2
        table.append_row({"step": 4, "thing": [4]})
    with cox.Store(tmp_path, "open", mode="r") as store:
        frame = store["t"].df
        assert frame["step"].tolist() == [0, *rows, 4]
        assert [store["t"].get_pickle(cell) for cell in frame["thing"]] == [[step] for step in [0, *rows, 4]]
    with cox.Store(tmp_path, "late") as store:  # whatever became of it, it can be gone on with
        store.add_table("t", schema).append_row({"step": 9, "thing": [9]})
