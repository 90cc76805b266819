"""A run's directory is removed, renamed or replaced while a store is writing it.

Whatever happens to it, a row is acknowledged only where a reader will find it, or the store says that the run
is gone; and nobody's run is written into instead, and no removed directory comes back.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.errors import CoxWarning, RunGoneError, RunNotFoundError, StorageWarning
from cox.storage import fs, writer

PATIENCE = 20.0


def open_store(folder: Path, name: str = "run", **options: Any) -> cox.Store:
    store = cox.Store(folder, name, **options)
    store.add_table("t", {"x": int})
    return store


def append(store: cox.Store, *values: int) -> None:
    for value in values:
        store["t"].append_row({"x": value})


def values(folder: Path, name: str = "run") -> list[int]:
    with cox.Store(folder, name, mode="r") as store:
        return [] if "t" not in store else store["t"].df["x"].tolist()


def append_until_refused(store: cox.Store) -> tuple[float, RunGoneError]:
    """Append rows, as a program would, until one is refused. Returns how many seconds that took."""
    start = time.monotonic()
    with pytest.raises(RunGoneError) as raised:
        while time.monotonic() < start + PATIENCE:
            append(store, 7)
            time.sleep(0.002)
    return time.monotonic() - start, raised.value


def remove_journals(run: Path) -> None:
    for path in (run / ".cox" / "journal").iterdir():
        path.unlink()


REMOVED_IN_PART: dict[str, Callable[[Path], object]] = {
    "the journal": remove_journals,
    "the directory of journals": lambda run: shutil.rmtree(run / ".cox" / "journal"),
    "the claims": lambda run: shutil.rmtree(run / ".cox" / "claims"),
    "all that cox keeps": lambda run: shutil.rmtree(run / ".cox"),
    "another file in the place of the journal": lambda run: [
        path.with_suffix(".x").write_bytes(b"") or path.with_suffix(".x").replace(path)
        for path in (run / ".cox" / "journal").glob("*.log")
    ],
}


def test_a_removed_run_is_noticed_within_a_second_and_stays_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    append(store, *range(50))
    shutil.rmtree(tmp_path / "run")
    seconds, error = append_until_refused(store)
    assert seconds < 2  # one, on a machine that does nothing else
    assert "was removed while it was written" in str(error) and "rows of this process went with it" in str(
        error
    )
    with pytest.raises(RunGoneError):  # and again
        append(store, 1)
    with pytest.raises(RunGoneError):
        store.tensorboard  # noqa: B018
    with pytest.raises(RunGoneError):
        store["t"].rewind(0)
    with pytest.raises(RunGoneError):
        store["t"].add_column("y", float)
    caplog.clear()
    store.close()
    assert not (tmp_path / "run").exists()
    assert "went with it" in caplog.text and "stays" not in caplog.text


def test_a_removal_that_takes_its_time_is_not_disturbed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    append(store, 0)

    failures = []

    def remove() -> None:
        for path in sorted((tmp_path / "run").rglob("*"), reverse=True) + [tmp_path / "run"]:
            time.sleep(0.05)
            try:
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            except OSError as error:
                failures.append(error)

    remover = threading.Thread(target=remove)
    remover.start()
    while remover.is_alive():
        store.look()
        time.sleep(0.02)
    append_until_refused(store)
    store.close()
    assert not failures
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", REMOVED_IN_PART)
@pytest.mark.parametrize("noticed", ["at a look", "at a fold", "at the close"])
def test_what_is_removed_of_a_run_is_written_anew(
    tmp_path: Path, what: str, noticed: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    append(store, *range(5))
    REMOVED_IN_PART[what](tmp_path / "run")
    if noticed == "at a look":
        store.look()
        assert values(tmp_path) == list(range(5))
    elif noticed == "at a fold":
        monkeypatch.setattr(writer.RunWriter, "look", lambda _: None)
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        assert values(tmp_path) == list(range(5))
    append(store, *range(5, 10))
    if noticed == "at a look":
        assert values(tmp_path) == list(range(10))
        with pytest.raises(cox.errors.RunInUseError):
            writer.RunWriter(store._run, None, sync=False)
    store.close()
    assert values(tmp_path) == list(range(10))
    assert "written anew" in caplog.text
    with open_store(tmp_path) as store:
        append(store, 10)
    assert values(tmp_path) == list(range(11))


@pytest.mark.parametrize("what", ["emptied", "an older copy"])
@pytest.mark.parametrize("idle", [True, False])
def test_no_row_goes_into_a_journal_that_another_program_has_written_into(
    tmp_path: Path, what: str, idle: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is the same one, and rows that are written behind its end make it as long as before."""
    store = open_store(tmp_path)
    append(store, *range(3))
    (journal,) = (tmp_path / "run" / ".cox" / "journal").glob("*.log")
    older = journal.read_bytes() if what == "an older copy" else b""
    append(store, *range(3, 6))
    store.look()
    journal.write_bytes(older)
    if not idle:
        append(store, 6)
    store.look()
    append(store, *range(10, 14))
    assert "another program has emptied the journal" in caplog.text
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert values(tmp_path)[-4:] == [10, 11, 12, 13]
    assert any("records are lost" in str(each.message) for each in told)
    store.close()
    assert values(tmp_path)[-4:] == [10, 11, 12, 13]


def test_a_fold_notices_that_the_run_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    append(store, 0)
    shutil.rmtree(tmp_path / "run")
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    with pytest.raises(RunGoneError):
        append(store, 1)
    assert not (tmp_path / "run").exists()
    store.close()


def test_a_renamed_run_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(tmp_path)
    store.add_table("o", {"thing": cox.PICKLE})
    append(store, 0)
    store.tensorboard.add_scalar("loss", 1.0, 0)
    (tmp_path / "run").rename(tmp_path / "other")
    store.look()
    append(store, 1)
    store["o"].append_row({"thing": {"a": 1}})
    store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    append(store, 2)
    assert "was moved to" in caplog.text
    assert store.path == str(tmp_path / "other")
    assert store["t"].df["x"].tolist() == [0, 1, 2]
    store.close()
    assert os.listdir(tmp_path) == ["other"]
    assert values(tmp_path, "other") == [0, 1, 2]
    with pytest.warns(CoxWarning, match="was renamed while it was written"):
        assert values(tmp_path) == [0, 1, 2]
    with pytest.raises(RunNotFoundError):
        cox.Store(tmp_path, "third", mode="r")


def test_a_renamed_run_makes_no_second_one_under_its_old_name_at_a_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "FOLD_AT", 2000)
    with open_store(tmp_path) as store:
        append(store, *range(50))
        (tmp_path / "run").rename(tmp_path / "other")
        append(store, *range(50, 500))
    assert os.listdir(tmp_path) == ["other"]
    assert values(tmp_path, "other") == list(range(500))


def test_another_run_at_the_path_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy to another disk, say: the run was moved there, and removed here."""
    with open_store(tmp_path, "another") as other:
        append(other, 100)
    store = open_store(tmp_path)
    append(store, 0, 1)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "another").rename(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    store.look()
    with pytest.raises(RunGoneError, match="something else is at its path"):
        append(store, 2)
    store.close()
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_new_store_in_the_same_process_is_a_new_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_store(tmp_path)
    append(first, *range(5))
    shutil.rmtree(tmp_path / "run")
    second = open_store(tmp_path)
    assert second["t"].nrows == 0
    append(second, 10, 11)
    with pytest.raises(RunGoneError):
        for _ in range(10000):
            append(first, 5)
            first.look()
    first.close()
    append(second, 12)
    second.close()
    assert values(tmp_path) == [10, 11, 12]


def test_a_store_of_the_new_name_in_the_same_process_is_the_same_run(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    append(first, 0)
    (tmp_path / "run").rename(tmp_path / "other")
    second = open_store(tmp_path, "other")
    append(second, 1)
    append(first, 2)
    third = open_store(tmp_path)  # and of the old name a new one
    append(third, 9)
    for store in (first, second, third):
        store.close()
    assert values(tmp_path, "other") == [0, 1, 2]
    assert values(tmp_path) == [9]


def test_rows_of_a_removed_run_are_counted_where_the_program_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path, on_error="warn")
    append(store, 0)
    shutil.rmtree(tmp_path / "run")
    store.look()
    with pytest.warns(StorageWarning, match="was removed while it was written"):
        append(store, 1)
    assert store.not_stored == 1
    store.close()


@pytest.mark.parametrize("sync", [None, "row"])
def test_ranks_follow_a_run_each_for_itself(tmp_path: Path, sync: str | None) -> None:
    stores = [open_store(tmp_path, rank=rank, sync=sync) for rank in (0, 1)]
    for store in stores:
        append(store, 0)
    (tmp_path / "run").rename(tmp_path / "other")
    for store in stores:
        store.look()
        append(store, 1)
    for store in stores:
        store.close()
    assert sorted(values(tmp_path, "other")) == [0, 0, 1, 1]
    assert not (tmp_path / "run").exists()


def test_a_run_that_comes_back_is_gone_on_with(tmp_path: Path) -> None:
    """Its file system was unmounted for a while, say: here it is out of sight for whoever looks."""
    store = open_store(tmp_path)
    append(store, 0)
    (tmp_path / "run").rename(tmp_path / "away")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cox.storage.fs.path_of", lambda fd: None)
        store.look()
        with pytest.raises(RunGoneError, match="cannot be told from here"):
            append(store, 1)
        (tmp_path / "away").rename(tmp_path / "run")
        append(store, 2)
    store.close()
    assert values(tmp_path) == [0, 2]


def test_nothing_is_said_of_a_run_that_is_in_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(writer, "FOLD_AT", 1000)
    with open_store(tmp_path) as store:
        for value in range(300):
            append(store, value)
            store.look()
    assert values(tmp_path) == list(range(300))
    assert not caplog.records


def test_a_table_that_appears_does_not_end_an_iteration(tmp_path: Path) -> None:
    with cox.Store(tmp_path, "run") as store:
        for name in "abc":
            store.add_table(name, {"x": int}).append_row({"x": 1})
        reader = cox.Store(tmp_path, "run", mode="r")
        names = []
        for name in reader.tables:
            names.append(name)
            store.add_table(f"later_{name}", {"x": int}).append_row({"x": 1})
            assert len(reader[name].df) == 1
        assert names == ["a", "b", "c"]
        assert len(reader.tables) == 6


def test_memory_that_runs_out_at_the_close_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def read(*args: object, **options: object) -> None:
        raise MemoryError

    store = open_store(tmp_path)
    append(store, 0)
    with monkeypatch.context() as patch:
        patch.setattr("cox.storage.snapshot.read", read)
        store.close()
    assert "could not be folded and stays" in caplog.text
    assert values(tmp_path) == [0]


def test_a_refused_read_says_that_it_was_one(tmp_path: Path) -> None:
    error = fs.refused(PermissionError(13, ""), "cannot read the run", tmp_path, reading=True)
    assert "you may not read it" in str(error)
    assert "you may not write there" in str(fs.refused(PermissionError(13, ""), "cannot write", tmp_path))
