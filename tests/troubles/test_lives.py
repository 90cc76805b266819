"""Files of two lives of a run in one directory: told apart, never mixed, never lost, and said."""

from __future__ import annotations

import itertools
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest

import cox
from cox.errors import DamageWarning
from cox.integrity.repair import repair
from cox.integrity.verify import verify
from cox.storage import fold, journal, layout, runinfo, snapshot
from tests.compat import comparison

SCHEMA = {"n": int, "who": str}


def session(
    folder: Path,
    who: str,
    rows: int,
    *,
    killed: bool = False,
    mode: str = "a",
    rewind: int | None = None,
    rank: int | None = None,
) -> None:
    """Log some rows; a killed one leaves the files as a SIGKILL does."""
    run = folder / "x"
    store = cox.Store(folder, "x", mode=mode, rank=rank)
    table = store.add_table("t", SCHEMA)
    if rewind is not None:
        store.rewind("t", rewind, purge_tensorboard=False)
    for n in range(rows):
        table.append_row({"n": n, "who": who})
    if killed:
        shutil.copytree(run, folder / "copy")
    store.close()
    if killed:
        shutil.rmtree(run)
        (folder / "copy").rename(run)


def beside(folder: Path) -> Path:
    """Another folder of runs."""
    return folder.with_name(f"{folder.name}-second")


def read(folder: Path) -> tuple[dict[str, int], list[str]]:
    """How many rows there are of each life, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with cox.Store(folder, "x", mode="r") as store:
            rows = Counter(store["t"].df["who"]) if "t" in store else Counter()
    assert all(warning.category is DamageWarning for warning in caught)
    comparison.assert_readers_agree(folder / "x")
    return dict(rows), sorted({str(warning.message) for warning in caught})


def merge(source: Path, target: Path, *names: str) -> None:
    """Copy files of a run over those of another one, as a copying program does that deletes nothing."""
    for path in sorted(source.joinpath("x").rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and (not names or path.name in names or path.suffix == ".log" in names):
            target.joinpath(relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / relative)


def contents(folder: Path) -> set[bytes]:
    """The bytes of all journals, those kept aside among them, and of store files that were."""
    return {path.read_bytes() for path in folder.joinpath("x", ".cox").rglob("*") if path.is_file()}


def logs_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.joinpath("x/.cox/journal").glob("*.log")}


def check_kept(folder: Path, foreign: set[bytes]) -> None:
    """One session later the rows are the same, nothing is warned of, and what was foreign lies aside."""
    before, _ = read(folder)
    session(folder, "after", 1)
    assert read(folder) == (before | {"after": 1}, [])
    assert foreign <= contents(folder)
    assert verify(folder / "x").ok


def test_journals_of_a_run_that_was_begun_anew_under_its_name(tmp_path: Path) -> None:
    session(tmp_path, "old", 100, killed=True)
    old = logs_of(tmp_path)
    shutil.copytree(tmp_path, beside(tmp_path))
    shutil.rmtree(tmp_path / "x")
    session(tmp_path, "new", 30)
    merge(beside(tmp_path), tmp_path, *old)
    rows, said = read(tmp_path)
    assert rows == {"new": 30}
    (name,) = old
    assert len(said) == 1
    assert name in said[0]
    assert [(finding.what, finding.file) for finding in verify(tmp_path / "x").findings] == [
        ("foreign", f".cox/journal/{name}")
    ]
    check_kept(tmp_path, set(old.values()))
    assert (tmp_path / "x/.cox/journal" / name).with_suffix(".foreign").exists()


def test_a_longer_journal_of_another_run_does_not_win(tmp_path: Path) -> None:
    session(tmp_path, "old", 100, killed=True)
    old = logs_of(tmp_path)
    shutil.copytree(tmp_path, beside(tmp_path))
    shutil.rmtree(tmp_path / "x")
    session(tmp_path, "new", 30, killed=True)
    merge(beside(tmp_path), tmp_path, *old)
    rows, said = read(tmp_path)
    assert rows == {"new": 30}
    assert len(said) == 1
    check_kept(tmp_path, set(old.values()))


FILES = ("store.h5", "run.json", "main.json", ".log")


@pytest.mark.parametrize("ends", [*itertools.product([False, True], repeat=2)], ids=str)
@pytest.mark.parametrize("base", [0, 40])
@pytest.mark.parametrize("rewind", [None, 20])
def test_copies_that_both_went_on_are_never_mixed(
    tmp_path: Path, ends: tuple[bool, bool], base: int, rewind: int | None
) -> None:
    """Whichever files a copying program takes over: the store file of one and the journals of the other …"""
    first, second = tmp_path / "first", tmp_path / "second"
    if base:
        session(first, "base", base)
        shutil.copytree(first, second)
    cut = rewind if base else None
    session(first, "A", 30, killed=ends[0], rewind=cut)
    session(second, "B", 25, killed=ends[1])
    kept = base if cut is None else cut
    whole = [{"A": 30, "base": kept}, {"B": 25, "base": base}]
    for count in range(1, 5):
        for names in itertools.combinations(FILES, count):
            place = tmp_path / "_".join(names)
            shutil.copytree(first, place)
            merge(second, place, *names)
            all_logs = set(logs_of(place).values())
            rows, said = read(place)
            assert not {"A", "B"} <= set(rows), (names, rows)
            lost = any("lost" in sentence for sentence in said)
            foreign = any("another life" in sentence for sentence in said)
            if not (foreign or lost):
                found = {who: n for who, n in rows.items() if n}
                there = [{who: n for who, n in each.items() if n} for each in whole]
                assert found in [*there, {"base": base} if base else {}], (names, rows)
                unread = [b"\xa1A", b"\xa1B"]
                for who, text in zip("AB", unread, strict=True):
                    in_journal = any(text in data for data in all_logs)
                    assert not in_journal or who in rows, (names, rows, said)
            session(place, "after", 1)
            assert read(place) == (rows | {"after": 1}, [])
            for data in all_logs:
                who = "A" if b"\xa1A" in data else "B"
                assert who in rows or data in contents(place), names
            shutil.rmtree(place)


def test_an_old_store_file_beside_a_newer_journal(tmp_path: Path) -> None:
    session(tmp_path, "old", 20)
    old = (tmp_path / "x/store.h5").read_bytes()
    shutil.rmtree(tmp_path / "x")
    session(tmp_path, "new", 15, killed=True)
    (tmp_path / "x/store.h5").write_bytes(old)
    rows, said = read(tmp_path)
    assert rows == {"new": 15}
    assert len(said) == 1
    assert "store.h5 belongs to another life" in said[0]
    check_kept(tmp_path, {old})


def test_a_store_file_of_before_in_the_same_run_loses_no_newer_row(tmp_path: Path) -> None:
    """It is of the same life: what came between is lost, which is said, and nothing is taken for foreign."""
    session(tmp_path, "one", 20)
    old = (tmp_path / "x/store.h5").read_bytes()
    session(tmp_path, "two", 20)
    session(tmp_path, "three", 20, killed=True)
    (tmp_path / "x/store.h5").write_bytes(old)
    rows, said = read(tmp_path)
    assert rows == {"one": 20, "three": 20}
    assert not any("another life" in sentence for sentence in said)
    assert any("records are lost" in sentence for sentence in said)


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_what_was_before_mode_w_does_not_come_back(tmp_path: Path, killed: bool) -> None:
    session(tmp_path, "old", 20)
    session(tmp_path, "old", 5, killed=True)
    old, store_file = logs_of(tmp_path), (tmp_path / "x/store.h5").read_bytes()
    session(tmp_path, "new", 10, killed=killed, mode="w")
    journals = tmp_path / "x/.cox/journal"
    for name, data in old.items():
        (journals / name).write_bytes(data)
    assert read(tmp_path) == ({"new": 10}, []), "the store file knows them"
    for name in old:
        (journals / name).unlink()
    newer = logs_of(tmp_path)
    (tmp_path / "x/store.h5").write_bytes(store_file)
    rows, said = read(tmp_path)
    assert rows == {"old": 20}
    assert said
    check_kept(tmp_path, set(newer.values()))


def test_a_backup_without_deleting_is_read_without_a_word(tmp_path: Path) -> None:
    """What was removed at the source stays there: journals that were folded since, also half-copied."""
    source, backup = tmp_path / "source", tmp_path / "backup"
    for turn in range(4):
        session(source, "me", 10, killed=True)
        merge(source, backup)
        (name, data), *_ = logs_of(source).items()
        if turn % 2:
            (backup / "x/.cox/journal" / name).write_bytes(data[: len(data) * 2 // 3])
    session(source, "me", 10)
    merge(source, backup)
    assert len(logs_of(backup)) == 4
    assert read(backup) == ({"me": 50}, [])
    assert verify(backup / "x").ok
    session(backup, "me", 1)
    assert read(backup) == ({"me": 51}, [])


def test_a_copy_under_another_name_is_a_run_like_any_other(tmp_path: Path) -> None:
    session(tmp_path, "me", 10)
    session(tmp_path, "me", 10, killed=True)
    shutil.copytree(tmp_path / "x", tmp_path / "copy-of-x")
    for name in ("x", "copy-of-x"):
        assert verify(tmp_path / name).ok
        with cox.Store(tmp_path, name) as store:
            assert store["t"].nrows == 20
            store["t"].append_row({"n": 0, "who": name})
        assert verify(tmp_path / name).ok
    assert len(cox.CollectionReader(tmp_path).df("t")) == 42


def test_a_kill_between_rename_and_removal_is_no_other_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fold, "_remove_all", lambda *_: None)
        session(tmp_path, "me", 10)
        session(tmp_path, "me", 10)
    assert len(logs_of(tmp_path)) == 2
    assert read(tmp_path) == ({"me": 20}, [])
    session(tmp_path, "me", 1)
    assert not logs_of(tmp_path)
    assert read(tmp_path) == ({"me": 21}, [])


def test_a_writer_that_goes_on_after_another_took_over_is_not_applied_from_there_on(tmp_path: Path) -> None:
    """A host that was stopped, and sends its rows when another one has its claim."""
    other = tmp_path / "other"
    store = cox.Store(tmp_path, "x")
    table = store.add_table("t", SCHEMA)
    for n in range(10):
        table.append_row({"n": n, "who": "first"})
    shutil.copytree(tmp_path / "x", other / "x")
    for n in range(5):
        table.append_row({"n": n, "who": "late"})
    (late,) = logs_of(tmp_path).items()
    session(other, "second", 3, killed=True)
    (other / "x/.cox/journal" / late[0]).write_bytes(late[1])
    rows, said = read(other)
    assert rows == {"first": 10, "second": 3}
    assert len(said) == 1
    assert late[0] in said[0]
    check_kept(other, {late[1]})
    store.close()


def test_a_rank_that_lives_keeps_its_journal_whatever_a_fold_thinks_of_it(tmp_path: Path) -> None:
    session(tmp_path, "base", 5, rank=1)
    shutil.copytree(tmp_path, beside(tmp_path))
    with cox.Store(tmp_path, "x", rank=1) as store:
        store["t"].append_row({"n": 0, "who": "A"})
        session(beside(tmp_path), "B", 3, rank=1)
        merge(beside(tmp_path), tmp_path, "store.h5")
        (mine,) = logs_of(tmp_path)
        with cox.Store(tmp_path, "x", rank=0) as neighbour:
            neighbour._writer.fold_if_it_helps()  # type: ignore[union-attr]
        assert list(logs_of(tmp_path)) == [mine]
    rows, said = read(tmp_path)
    assert rows == {"base": 5, "B": 3}
    assert not said


def test_a_writer_whose_store_file_was_replaced_goes_on_where_readers_see_it(tmp_path: Path) -> None:
    second = beside(tmp_path)
    session(tmp_path, "base", 5)
    shutil.copytree(tmp_path, second)
    session(second, "B", 3)
    with cox.Store(tmp_path, "x") as store:
        store["t"].append_row({"n": 0, "who": "A"})
        merge(second, tmp_path, "store.h5")
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        store["t"].append_row({"n": 1, "who": "A again"})
        assert read(tmp_path) == ({"base": 5, "B": 3, "A again": 1}, [])
    assert read(tmp_path) == ({"base": 5, "B": 3, "A again": 1}, [])


def test_a_writer_beside_whose_journal_a_longer_one_is_put_keeps_its_rows(tmp_path: Path) -> None:
    second = beside(tmp_path)
    session(tmp_path, "base", 5)
    shutil.copytree(tmp_path, second)
    session(second, "B", 30, killed=True)
    other = set(logs_of(second).values())
    with cox.Store(tmp_path, "x") as store:
        for n in range(3):
            store["t"].append_row({"n": n, "who": "A"})
        merge(second, tmp_path, ".log")
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        assert read(tmp_path) == ({"base": 5, "A": 3}, [])
        store["t"].append_row({"n": 3, "who": "A"})
    assert read(tmp_path) == ({"base": 5, "A": 4}, [])
    assert other <= contents(tmp_path)


def test_repair_puts_what_is_foreign_with_the_originals(tmp_path: Path) -> None:
    second = beside(tmp_path)
    session(tmp_path, "base", 5)
    shutil.copytree(tmp_path, second)
    session(tmp_path, "A", 5, killed=True)
    session(second, "B", 7, killed=True)
    merge(second, tmp_path, ".log")
    before = set(logs_of(tmp_path).values())
    dry = repair(tmp_path / "x", dry_run=True)
    assert dry.kept == {"t": 12}
    done = repair(tmp_path / "x")
    assert done.after.ok
    assert read(tmp_path) == ({"base": 5, "B": 7}, [])
    assert before <= contents(tmp_path)
    assert not logs_of(tmp_path)


def test_a_run_file_of_another_run_costs_nothing(tmp_path: Path) -> None:
    second = beside(tmp_path)
    session(tmp_path, "mine", 5)
    session(second, "other", 5)
    merge(second, tmp_path, "run.json")
    assert read(tmp_path) == ({"mine": 5}, [])
    session(tmp_path, "mine", 5)
    run = layout.RunLayout(tmp_path / "x")
    assert read(tmp_path) == ({"mine": 10}, [])
    assert runinfo.id_of(runinfo.read(run)) == snapshot.read(run).run_id
    assert runinfo.run_id(run) != runinfo.run_id(layout.RunLayout(second / "x"))


def test_runs_of_format_1_go_on_and_know_their_journals_from_then_on(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "compat/golden/own/v1/killed"
    shutil.copytree(golden, tmp_path / "x")
    old = logs_of(tmp_path)
    with cox.Store(tmp_path, "x", mode="r") as store:
        rows = store["types"].nrows
    with cox.Store(tmp_path, "x") as store:
        assert store["types"].nrows == rows
    for name, data in old.items():
        (tmp_path / "x/.cox/journal" / name).write_bytes(data)
    assert snapshot.read(layout.RunLayout(tmp_path / "x")).problems == []
    assert journal.read_journals(tmp_path / "x/.cox/journal")[0].header is None
