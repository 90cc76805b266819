"""Copies of runs that are being written: by `cox copy`, and by programs that know nothing of cox."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import cox
from cox.cli import main
from cox.errors import CopyError, DamageWarning, RunInUseError, RunNotFoundError
from cox.integrity import copying
from cox.integrity.copying import copy_run
from cox.integrity.repair import repair
from cox.integrity.verify import verify
from cox.storage import fs, layout, newest, writer


def log(folder: Path, *rows: int, name: str = "run", **options: object) -> None:
    with cox.Store(folder, name) as store:
        store.add_table("t", {"x": int})
        for row in rows:
            store["t"].append_row({"x": row})


def values(folder: Path, name: str = "run") -> list[int]:
    with cox.Store(folder, name, mode="r") as store:
        return store["t"].df["x"].tolist()


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


@contextlib.contextmanager
def busy_writer(folder: Path, monkeypatch: pytest.MonkeyPatch, fold_at: int = 3000) -> Iterator[list[int]]:
    """A run that is logged to, and folded all the time. Gives a list that is as long as it has rows."""
    monkeypatch.setattr(writer, "FOLD_AT", fold_at)
    acknowledged: list[int] = []
    stop = threading.Event()

    def work() -> None:
        with cox.Store(folder, "run") as store:
            store.add_table("t", {"x": int})
            for row in itertools.count():
                store["t"].append_row({"x": row})
                acknowledged.append(row)
                store._writer.fold_at = fold_at  # type: ignore[union-attr] # it would grow with the store file
                if stop.is_set():
                    return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while not acknowledged:
            stop.wait(0.01)
        yield acknowledged
    finally:
        stop.set()
        thread.join()


def test_a_copy_of_a_living_run_has_every_row_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    with busy_writer(tmp_path / "runs", monkeypatch) as acknowledged:
        for turn in range(12):
            before = len(acknowledged)
            copy_run(tmp_path / "runs" / "run", tmp_path / f"copies{turn % 2}")
            rows = values(tmp_path / f"copies{turn % 2}")
            assert rows == list(range(len(rows))) and len(rows) >= before
    copy_run(tmp_path / "runs" / "run", tmp_path / "copies1")
    assert values(tmp_path / "copies1") == acknowledged
    assert verify(tmp_path / "copies1" / "run").ok


def copy_in_order(
    run: Path, copy: Path, order: tuple[str, ...], between: Callable[[], None], *, lists_first: bool
) -> None:
    """Copy a run as other programs do: list its files, all or those of a directory, then read them."""

    def names() -> list[str]:
        return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())

    listed = names() if lists_first else None
    for start in order:
        for name in names() if listed is None else listed:
            if name.startswith(start):
                with contextlib.suppress(FileNotFoundError):
                    data = (run / name).read_bytes()
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    (copy / name).write_bytes(data)
                between()


@pytest.mark.parametrize("lists_first", [True, False])
@pytest.mark.parametrize("order", list(itertools.permutations(("store.h5", ".cox/run", ".cox/journal"))))
def test_a_copy_by_another_program_has_every_row_or_says_that_it_has_not(
    tmp_path: Path, order: tuple[str, ...], *, lists_first: bool
) -> None:
    """A fold, or the end of the run, comes after any file that is copied."""
    for case, (when, ends) in enumerate(itertools.product(range(4), (False, True))):
        folder, copy = tmp_path / str(case), tmp_path / f"{case}-copy"
        store = cox.Store(folder, "run")
        store.add_table("t", {"x": int})
        for row in range(3):
            store["t"].append_row({"x": row})
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        for row in range(3, 6):
            store["t"].append_row({"x": row})
        counter = itertools.count()

        def between(
            store: cox.Store = store,
            counter: itertools.count[int] = counter,
            when: int = when,
            ends: bool = ends,
        ) -> None:
            if next(counter) == when:
                store.close() if ends else store._writer.fold_if_it_helps()  # type: ignore[union-attr]
            if not ends:
                store["t"].append_row({"x": 6})

        copy_in_order(folder / "run", copy / "run", order, between, lists_first=lists_first)
        store.close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = values(copy)
        told = [str(warning.message) for warning in caught if warning.category is DamageWarning]
        assert rows[:6] == list(range(6)) or any(
            "is missing" in sentence or "are lost" in sentence for sentence in told
        ), (when, ends, rows)
        if len(rows) < 3 or told:
            assert not verify(copy / "run").ok


def test_a_listing_that_misses_the_newest_name_has_the_one_before(tmp_path: Path) -> None:
    """A name that comes into a directory while that is listed may be missed, and an old one is gone."""
    with cox.Store(tmp_path / "runs", "run") as store:
        store.add_table("t", {"x": int})
        for row in range(4):
            store["t"].append_row({"x": row})
            if row == 2:
                shutil.copyfile(store._run.store_file, tmp_path / "as it was")
            store._writer.fold_if_it_helps()  # type: ignore[union-attr]
    run = layout.RunLayout(tmp_path / "runs/run")
    marks = newest.read(run)
    assert [mark.seq for mark in marks] == sorted(mark.seq for mark in marks) and len(marks) == 2
    marks[-1].path(run).unlink()
    shutil.copyfile(tmp_path / "as it was", run.store_file)
    with pytest.warns(DamageWarning, match="is missing, and the newest rows with it"):
        assert values(tmp_path / "runs") == [0, 1]


def test_a_copy_that_lacks_rows_is_repaired_and_gone_on_with(tmp_path: Path) -> None:
    log(tmp_path / "a", 0, 1, 2)
    store = cox.Store(tmp_path / "a", "run")
    store["t"].append_row({"x": 3})
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("*.log", "claims"))
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    store.close()
    with pytest.warns(DamageWarning, match="is missing, and the newest rows with it"):
        assert values(tmp_path / "b") == [0, 1, 2]
    assert repair(tmp_path / "b" / "run").after.ok
    assert values(tmp_path / "b") == [0, 1, 2]
    log(tmp_path / "c", 4)
    assert values(tmp_path / "c") == [0, 1, 2, 4]


def test_a_journal_without_a_record_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"x": int})
        with monkeypatch.context() as patch:
            patch.setattr(
                "cox.storage.journal.writing.JournalWriter._put",
                lambda *_: (_ for _ in ()).throw(OSError(28, "")),
            )
            with pytest.raises(cox.errors.StorageError):
                store["t"].append_row({"x": 0})
    with cox.Store(tmp_path, "run", mode="r") as store:
        assert "t" not in store


def test_what_was_copied_is_not_copied_again(tmp_path: Path) -> None:
    log(tmp_path / "runs", 0)
    (tmp_path / "runs/run/save/deep").mkdir()
    (tmp_path / "runs/run/save/deep/model.bin").write_bytes(b"x" * 3_000_000)
    (tmp_path / "runs/run/save/latest").symlink_to("deep/model.bin")
    first = copy_run(tmp_path / "runs/run", tmp_path / "copies")
    assert first.bytes > 3_000_000
    assert copy_run(tmp_path / "runs/run", tmp_path / "copies").files == 0
    copy = tmp_path / "copies/run"
    assert (copy / "save/latest").is_symlink() and (copy / "save/latest").read_bytes() == b"x" * 3_000_000
    log(tmp_path / "runs", 1)
    assert 0 < copy_run(tmp_path / "runs/run", tmp_path / "copies").bytes < 100_000
    assert values(tmp_path / "copies") == [0, 1]


def test_a_copy_that_was_cut_off_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path / "runs", 0)
    (tmp_path / "runs/run/save/model.bin").write_bytes(b"x" * 100_000)
    really = fs.rename
    for stop in range(20):
        calls = itertools.count()

        def rename(source: Path, target: Path, calls: itertools.count[int] = calls, stop: int = stop) -> None:
            if next(calls) == stop:
                raise KeyboardInterrupt
            really(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(fs, "rename", rename)
            try:
                copy_run(tmp_path / "runs/run", tmp_path / f"copies{stop}")
                break
            except KeyboardInterrupt:
                pass
        copy_run(tmp_path / "runs/run", tmp_path / f"copies{stop}")
        assert values(tmp_path / f"copies{stop}") == [0]
        assert not list((tmp_path / f"copies{stop}").rglob(".tmp-*"))
    assert stop > 3


def test_another_run_of_the_name_is_left_alone(tmp_path: Path) -> None:
    log(tmp_path / "runs", 0)
    log(tmp_path / "others", 1)
    (tmp_path / "files" / "run").mkdir(parents=True)
    (tmp_path / "files" / "run" / "mine.txt").write_text("mine")
    for folder, why in (("others", "it is another run"), ("files", "it is not a run")):
        before = files(tmp_path / folder / "run")
        with pytest.raises(CopyError, match=why):
            copy_run(tmp_path / "runs/run", tmp_path / folder)
        assert files(tmp_path / folder / "run") == before


def test_a_copy_that_was_gone_on_with_is_left_alone(tmp_path: Path) -> None:
    log(tmp_path / "runs", 0)
    copy_run(tmp_path / "runs/run", tmp_path / "copies")
    with cox.Store(tmp_path / "copies", "run") as store:
        store["t"].append_row({"x": 5})
        with pytest.raises(RunInUseError):
            copy_run(tmp_path / "runs/run", tmp_path / "copies")
    with pytest.raises(CopyError, match="it was written since"):
        copy_run(tmp_path / "runs/run", tmp_path / "copies")
    assert values(tmp_path / "copies") == [0, 5]


def test_what_cannot_be_copied_is_said(tmp_path: Path) -> None:
    log(tmp_path / "runs", 0)
    os.mkfifo(tmp_path / "runs/run/save/pipe")
    assert copy_run(tmp_path / "runs/run", tmp_path / "copies").left_out == ["save/pipe"]
    with pytest.raises(RunNotFoundError):
        copy_run(tmp_path / "runs", tmp_path / "copies")
    with pytest.raises(CopyError, match="lies in the run"):
        copy_run(tmp_path / "runs/run", tmp_path / "runs")
    (tmp_path / "out").mkdir()
    shutil.rmtree(tmp_path / "copies/run/save")
    (tmp_path / "copies/run/save").symlink_to(tmp_path / "out")
    with pytest.raises(CopyError, match="is a link"):
        copy_run(tmp_path / "runs/run", tmp_path / "copies")
    assert not list((tmp_path / "out").iterdir())


def test_a_disk_that_gives_back_something_else_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path / "runs", 0)
    really = copying._copy_bytes

    def copy_bytes(file: object, out: object) -> tuple[int, int]:
        size, checksum = really(file, out)  # type: ignore[arg-type]
        return size, checksum ^ 1

    monkeypatch.setattr(copying, "_copy_bytes", copy_bytes)
    with pytest.raises(cox.errors.StorageError, match="the disk fails"):
        copy_run(tmp_path / "runs/run", tmp_path / "copies")
    assert not list((tmp_path / "copies").rglob(".tmp-*"))


def test_the_command_copies_all_runs_of_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        log(tmp_path / "runs", 1, name=name)
    log(tmp_path / "copies", 2, name="b")
    done = CliRunner().invoke(main, ["copy", str(tmp_path / "runs"), str(tmp_path / "copies")])
    assert done.exit_code == 1 and "b: not copied" in done.output and "files" in done.output
    assert values(tmp_path / "copies", "a") == [1] and values(tmp_path / "copies", "b") == [2]
    done = CliRunner().invoke(
        main, ["copy", str(tmp_path / "runs" / "a"), str(tmp_path / "copies"), "--json"]
    )
    assert done.exit_code == 0 and '"files": 0' in done.output
