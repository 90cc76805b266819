"""Which directories are runs, and what changes in a state when something of a run does."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.storage import layout, scan
from cox.storage.scan import State, find_runs, is_run, run_names, state_of
from tests.caching import make


def at(path: Path, *names: str) -> None:
    """Directories that are runs, for they have a store file."""
    for name in names:
        (path / name).mkdir(parents=True)
        (path / name / "store.h5").write_bytes(b"")


# --- Which there are


def test_runs_are_directories_with_a_store_a_journal_or_a_run_file(tmp_path: Path) -> None:
    at(tmp_path, "store")
    for name in ("journal/.cox/journal", "no run/save", "meta only/.cox", "run file/.cox"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run file/.cox/run.json").write_text("{}")
    (tmp_path / "file").write_text("")
    assert run_names(str(tmp_path)) == ["journal", "run file", "store"]
    assert [is_run(tmp_path / name) for name in ("store", "no run", "nowhere", "file")] == [
        True,
        *[False] * 3,
    ]


def test_names_come_sorted_and_find_runs_has_their_paths(tmp_path: Path) -> None:
    at(tmp_path, "b", "a", "é", "B", "10", "9")
    assert run_names(str(tmp_path)) == sorted(["b", "a", "é", "B", "10", "9"])
    assert [run.root for run in find_runs(tmp_path)] == [tmp_path / name for name in run_names(str(tmp_path))]


def test_the_cache_is_no_run_whatever_is_in_it(tmp_path: Path) -> None:
    at(tmp_path, layout.CACHE_DIR, "sub/" + layout.CACHE_DIR, "sub/a")
    assert run_names(str(tmp_path), nested=True) == ["sub/a"]


def test_deeper_runs_are_found_but_not_in_runs_nor_hidden_nor_through_links(tmp_path: Path) -> None:
    at(tmp_path, "a", "a/inner", "sweep/b", "sweep/deep/er/c", ".hidden/d")
    (tmp_path / "link").symlink_to(tmp_path / "sweep")
    (tmp_path / "link to a run").symlink_to(tmp_path / "sweep" / "b")
    (tmp_path / "sweep" / "up").symlink_to(tmp_path)
    assert run_names(str(tmp_path)) == ["a", "link to a run"]
    assert run_names(str(tmp_path), nested=True) == ["a", "link to a run", "sweep/b", "sweep/deep/er/c"]


def test_links_that_lead_nowhere_or_in_a_circle(tmp_path: Path) -> None:
    at(tmp_path, "a")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    assert run_names(str(tmp_path), nested=True) == ["a"]


def test_a_folder_that_goes_meanwhile_has_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(tmp_path, "a", "sweep/b", "z/c")
    really = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).rstrip("/").endswith("sweep"):
            shutil.rmtree(path)
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert run_names(str(tmp_path), nested=True) == ["a", "z/c"]
    with pytest.raises(FileNotFoundError):
        run_names(str(tmp_path / "nowhere"), nested=True)


def test_copies_beside_their_run_are_no_runs(tmp_path: Path) -> None:
    at(tmp_path, "a", "a_snapshot", "b_snapshot", "c", "c_snapshot", "d", "d_snapshot")
    (tmp_path / "c_snapshot" / ".cox").mkdir()
    (tmp_path / "d_snapshot" / "tensorboard").mkdir()
    assert run_names(str(tmp_path)) == ["a", "b_snapshot", "c", "c_snapshot", "d", "d_snapshot"]


# --- How they are


@pytest.fixture
def live(tmp_path: Path) -> Iterator[cox.Store]:
    with cox.Store(tmp_path, "run") as store:
        store.add_table("t", {"x": int}).append_row({"x": 1})
        yield store


def test_a_state_is_that_of_the_store_and_the_journals(live: cox.Store) -> None:
    run = Path(live.path)
    (journal,) = (run / ".cox" / "journal").glob("*.log")
    store, log, journals = (run / "store.h5").stat(), journal.stat(), journal.parent.stat()
    found = state_of(live.path)
    assert found == (
        store.st_ino,
        store.st_size,
        store.st_mtime_ns,
        store.st_ctime_ns,
        max(journals.st_mtime_ns, journals.st_ctime_ns),
        ((journal.name, (log.st_ino, log.st_size, log.st_mtime_ns, log.st_ctime_ns)),),
    )
    assert found.newest == max(store.st_ctime_ns, journals.st_ctime_ns, log.st_ctime_ns)
    assert found.written == max(store.st_mtime_ns, log.st_mtime_ns)


def append(run: Path) -> None:
    next((run / ".cox" / "journal").glob("*.log")).open("ab").write(b"x")


def add_a_journal(run: Path) -> None:
    (run / ".cox" / "journal" / "rank-3-00000007.log").write_bytes(b"")


def take_the_journal(run: Path) -> None:
    next((run / ".cox" / "journal").glob("*.log")).unlink()


def touch_the_store(run: Path) -> None:
    os.utime(run / "store.h5")


def set_its_time_back(run: Path) -> None:
    found = (run / "store.h5").stat()
    os.utime(run / "store.h5", ns=(found.st_atime_ns, found.st_mtime_ns))


def take_the_store(run: Path) -> None:
    (run / "store.h5").unlink()


def set_the_time_of_the_journals_back(run: Path) -> None:
    os.utime(run / ".cox" / "journal", (1, 1))


@pytest.mark.parametrize(
    "change",
    [
        append,
        add_a_journal,
        take_the_journal,
        touch_the_store,
        set_its_time_back,
        take_the_store,
        set_the_time_of_the_journals_back,
    ],
    ids=lambda change: change.__name__,
)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_whatever_changes_shows(tmp_path: Path, live: cox.Store, change: Callable[[Path], None]) -> None:
    copy = shutil.copytree(live.path, tmp_path / "copy")
    os.utime(copy / ".cox" / "journal", (1, 1))
    before = state_of(str(copy))
    assert state_of(str(copy), before) == before
    change(copy)
    assert state_of(str(copy), before) != before
    assert state_of(str(copy), before) == state_of(str(copy))


def test_other_files_do_not_count(tmp_path: Path) -> None:
    run = make(tmp_path, "a")
    before = state_of(str(run))
    (run / "save").mkdir(exist_ok=True)
    (run / "save" / "model.pt").write_bytes(b"x")
    (run / "notes.txt").write_bytes(b"x")
    assert state_of(str(run)) == before


def test_journals_are_not_looked_for_where_none_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path, "a")
    known = state_of(str(run))
    asked: list[str] = []
    really = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: asked.append(path) or really(path))
    assert state_of(str(run), known) == known
    assert asked == []
    state_of(str(run), known._replace(journal_dir=1))
    state_of(str(run), None)
    assert len(asked) == 2
    with cox.Store(tmp_path, "a") as store:
        store["t"].append_row({"x": 1, "s": ""})
        (name,) = (path.name for path in (run / ".cox" / "journal").glob("*.log"))
        assert [journal for journal, _ in state_of(str(run), known).journals] == [name]


def test_a_run_of_nothing_and_one_of_upstreams(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert state_of(str(tmp_path / "a")) == (0, -1, 0, 0, 0, ())
    assert state_of(str(tmp_path / "a")).newest == state_of(str(tmp_path / "a")).written == 0
    at(tmp_path, "b")
    (tmp_path / "b" / ".cox").write_bytes(b"a file")
    assert state_of(str(tmp_path / "b")).journal_dir == 0
    assert state_of(str(tmp_path / "b")).size == 0


def test_a_journal_that_is_folded_meanwhile(live: cox.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_a_journal(Path(live.path))
    really = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("rank-3-00000007.log"):
            raise FileNotFoundError(path)
        return really(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert [name.split("-")[0] for name, _ in state_of(live.path).journals] == ["main"]


def test_what_may_not_be_looked_at_raises(live: cox.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(path: Any, **options: Any) -> os.stat_result:
        raise PermissionError(13, "no", path)

    monkeypatch.setattr(scan, "os", type("Os", (), {"stat": staticmethod(stat), "fspath": os.fspath}))
    with pytest.raises(PermissionError):
        state_of(live.path)
    assert is_run(live.path), "it is named when it is read"


def test_the_newest_of_many() -> None:
    none = State(1, 0, 0, 0, 0, ())
    assert none._replace(changed=5, touched=3).newest == 5
    assert none._replace(journal_dir=7).newest == 7
    assert none._replace(journals=(("a", (9, 9, 1, 2)), ("b", (9, 9, 8, 3)))).newest == 8
    assert none._replace(journals=(("a", (9, 9, 1, 2)), ("b", (9, 9, 0, 6)))).written == 1
