"""Many processes at one run: nobody waits, nobody sees a torn, missing or repeated row, claims hold."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cox
from cox.errors import RunInUseError
from cox.storage import claims, empty, fs, hdf5, layout
from cox.testing import invariants
from tests.crash.children import Counter, without_locks
from tests.crash.zygote import PATIENCE, Child, Zygote

#: How long the reading beside a writer takes.
SECONDS = float(os.environ.get("COX_SECONDS", "3"))


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def end(*children: Child) -> None:
    """Leave no process behind, however the test went."""
    for child in children:
        if child._status is None:
            child.kill()
            child.wait()


def join(*children: Child) -> None:
    """Wait until all have ended well; if one has not, leave none behind."""
    try:
        for child in children:
            child.join()
    finally:
        end(*children)


@pytest.mark.slow
def test_c20_readers_beside_a_writer_see_every_acknowledged_row_once(zygote: Zygote, tmp_path: Path) -> None:
    acks, ended = str(tmp_path / "acks"), str(tmp_path / "end")
    Counter(Path(acks)), Counter(Path(ended))
    counts = [str(tmp_path / f"readings-{number}") for number in range(8)]
    writing = zygote.start("tests.crash.children:write_rows", str(tmp_path), SECONDS, acks, ended, counts)
    reading = [
        zygote.start("tests.crash.children:read_rows", str(tmp_path), acks, ended, count) for count in counts
    ]
    join(writing, *reading)
    assert all(Counter(Path(count)).value >= 3 for count in counts)
    rows = Counter(Path(acks)).value
    assert rows > 100
    with cox.Store(tmp_path, "run", mode="r") as store:
        assert store["t"].nrows == rows
    assert invariants.leftovers(tmp_path / "run") == []


@pytest.mark.parametrize("ranks", [2, 8])
def test_ranks_write_one_run_at_once(zygote: Zygote, tmp_path: Path, ranks: int) -> None:
    go = Counter(tmp_path / "go")
    rows = 120
    for turn in range(2):
        go.value = 0
        acks = [tmp_path / f"acks-{rank}" for rank in range(ranks)]
        children = [
            zygote.start(
                "tests.crash.children:write_as_rank",
                str(tmp_path),
                rank,
                rows,
                str(ack),
                str(tmp_path / "go"),
            )
            for rank, ack in enumerate(acks)
        ]
        try:
            go.value = 1
            counters = [Counter(ack) for ack in acks]
            wait_until(lambda counters=counters, turn=turn: min(c.value for c in counters) > turn * rows)
            before = [counter.value for counter in counters]
            with cox.Store(tmp_path, "run", mode="r") as store:
                frame = store["t"].df
            for rank in range(ranks):
                own = frame[(frame["rank"] == rank) & (frame["step"] >= 0)]["step"].tolist()
                assert own == list(range(len(own)))
                assert len(own) >= before[rank]
            for child in children:
                child.join()
        finally:
            end(*children)
    with cox.Store(tmp_path, "run", mode="r") as store:
        frame = store["t"].df
    assert list(frame) == ["step", "text", "rank"]
    for rank in range(ranks):
        own = frame[frame["rank"] == rank]
        assert own["step"].tolist() == list(range(2 * rows))
        assert own["text"].tolist() == [f"{rank}/{step}" for step in range(2 * rows)]
    assert invariants.leftovers(tmp_path / "run") == [], "the last to leave folds"


def test_ranks_that_were_killed_come_back_all_at_once(zygote: Zygote, tmp_path: Path) -> None:
    ranks = 6
    for turn in range(6):
        go = Counter(tmp_path / "go")
        go.value = 0
        ready = [tmp_path / f"ready-{rank}" for rank in range(ranks)]
        children = [
            zygote.start(
                "tests.crash.children:open_as_rank", str(tmp_path), rank, str(tmp_path / "go"), str(path)
            )
            for rank, path in enumerate(ready)
        ]
        try:
            go.value = 1
            counters = [Counter(path) for path in ready]
            deadline = time.monotonic() + PATIENCE
            while any(counter.value <= turn for counter in counters) and time.monotonic() < deadline:
                time.sleep(0.002)
            refused = [rank for rank, counter in enumerate(counters) if counter.value <= turn]
            for child in children:
                child.kill()
            for child in children:
                child.was_killed()  # or it says why it ended by itself
            assert refused == []
        finally:
            end(*children)
    with cox.Store(tmp_path, "run", mode="r") as store:
        assert sorted(zip(store["t"].df["rank"], store["t"].df["step"], strict=True)) == [
            (rank, step) for rank in range(ranks) for step in range(6)
        ]


@pytest.mark.parametrize("locks", [True, False], ids=["flock", "no-flock"])
def test_c24_of_many_that_open_a_new_run_at_once_one_gets_it(
    zygote: Zygote, tmp_path: Path, locks: bool
) -> None:
    processes = 6
    for turn in range(8):
        exp_id = f"run-{turn}"
        go, stop = Counter(tmp_path / f"go-{turn}"), Counter(tmp_path / f"stop-{turn}")
        said = [tmp_path / f"said-{turn}-{number}" for number in range(processes)]
        children = [
            zygote.start(
                "tests.crash.children:open_as_sole_writer",
                *(str(tmp_path), exp_id, str(tmp_path / f"go-{turn}"), str(path)),
                *(str(tmp_path / f"stop-{turn}"), locks),
            )
            for path in said
        ]
        try:
            counters = [Counter(path) for path in said]
            go.value = 1
            wait_until(lambda counters=counters: sum(counter.value > 0 for counter in counters) == processes)
            assert sorted(counter.value for counter in counters) == [1] + [2] * (processes - 1)
            stop.value = 1
            for child in children:
                child.join()
        finally:
            end(*children)
        assert invariants.observe(tmp_path, exp_id) == {"t": (("step",), [{"step": 0}, {"step": 1}])}


@pytest.mark.parametrize("locks", [True, False], ids=["flock", "no-flock"])
def test_c24_a_second_writer_is_refused_and_a_dead_ones_claim_taken_over(
    zygote: Zygote, tmp_path: Path, locks: bool
) -> None:
    for turn in range(3):
        said = Counter(tmp_path / f"said-{turn}")
        holder = zygote.start(
            "tests.crash.children:hold", str(tmp_path), "run", str(tmp_path / f"said-{turn}"), locks
        )
        try:
            wait_until(lambda said=said: said.value)
            zygote.run("tests.crash.children:be_refused", str(tmp_path), "run", holder.pid, locks)
            with cox.Store(tmp_path, "run", mode="r") as reader:
                assert reader["t"].df["step"].tolist() == list(range(turn + 1))
        finally:
            end(holder)
    with cox.Store(tmp_path, "run") as store:
        assert store["t"].df["step"].tolist() == [0, 1, 2]


def test_many_make_runs_in_one_new_folder_at_once(zygote: Zygote, tmp_path: Path) -> None:
    go, folder = Counter(tmp_path / "go"), tmp_path / "runs"
    children = [
        zygote.start("tests.crash.children:make_a_run", str(folder), number, str(tmp_path / "go"))
        for number in range(32)
    ]
    go.value = 1
    join(*children)
    assert len(list(folder.iterdir())) == 32
    with cox.CollectionReader(folder) as reader:
        frame = reader.df("t")
    assert frame["exp_id"].nunique() == 32
    assert sorted(frame["number"]) == sorted(list(range(32)) * 20)
    for _, rows in frame.groupby("exp_id"):
        assert rows["step"].tolist() == list(range(20))
        assert rows["number"].nunique() == 1


# --- Claims of others


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)  # so that it is put back
    without_locks()


def test_a_claim_of_another_host_is_believed_as_long_as_its_heart_beats(tmp_path: Path) -> None:
    cox.Store(tmp_path, "run").close()
    claim = layout.RunLayout(tmp_path / "run").claim_file(layout.MAIN_WRITER)
    claim.write_text(json.dumps({"pid": 7, "host": "elsewhere", "started": "1"}))
    with pytest.raises(RunInUseError, match="process 7 on host elsewhere"):
        cox.Store(tmp_path, "run")
    long_ago = time.time() - claims.STALE_AFTER - 60
    os.utime(claim, (long_ago, long_ago))
    cox.Store(tmp_path, "run").close()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("started", ["1", "unlike any start"])
def test_a_claim_of_an_earlier_process_with_our_own_number_is_dead(tmp_path: Path, started: str) -> None:
    """Containers count their processes from one: the next one has the same number, on the same host."""
    cox.Store(tmp_path, "run").close()
    claim = layout.RunLayout(tmp_path / "run").claim_file(layout.MAIN_WRITER)
    claim.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))
    cox.Store(tmp_path, "run").close()


@pytest.mark.usefixtures("no_locks")
def test_two_ranks_that_fold_at_once_lose_nothing_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (cox.Store(tmp_path, "run", rank=rank) for rank in (0, 1))
    tables = [store.add_table("t", {"step": int}) for store in (first, second)]
    for rank, table in enumerate(tables):
        table.append_row({"step": 100 * rank})
    replace, overtaken = fs.replace_file, threading.Event()
    others: list[threading.Thread] = []

    def replace_after_the_other(path: Path, *args: object, **options: object) -> None:
        if path.name == layout.STORE_FILE and not overtaken.is_set():
            overtaken.set()
            tables[1].append_row({"step": 101})  # the first has read the second's journal already

            def fold() -> None:
                second._writer.fold_if_it_helps()  # type: ignore[union-attr]

            others.append(threading.Thread(target=fold, daemon=True))
            others[0].start()
            others[0].join(2)  # or it waits for us, which is as good
        replace(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(fs, "replace_file", replace_after_the_other)
    first._writer.fold_if_it_helps()  # type: ignore[union-attr]
    assert overtaken.is_set()
    others[0].join(PATIENCE)
    with cox.Store(tmp_path, "run", mode="r") as reader:
        assert sorted(reader["t"].df["step"]) == [0, 100, 101]
    first.close()
    second.close()
    with cox.Store(tmp_path, "run", mode="r") as reader:
        assert sorted(reader["t"].df["step"]) == [0, 100, 101]


RANK_THAT_IS_KILLED = """
import sys
import cox
from cox.store import lifecycle

lifecycle.LOOK = 600  # it has not looked yet whether its files are still there
table = cox.Store(sys.argv[1], "run", rank=1).add_table("t", {"step": int})
for step in range(2):
    table.append_row({"step": step})
    print("stored")
    input()
"""


def test_a_fold_leaves_the_journal_of_a_rank_that_lives(start: Callable[..., Any], tmp_path: Path) -> None:
    second = start(RANK_THAT_IS_KILLED, tmp_path / "runs")
    assert second.line() == "stored"
    with cox.Store(tmp_path / "runs", "run", rank=0) as first:
        first.add_table("t", {"step": int}).append_row({"step": 100})
        first._writer.fold_if_it_helps()  # type: ignore[union-attr]
        second.tell()
        assert second.line() == "stored"
        second.kill()
        with cox.Store(tmp_path / "runs", "run", mode="r") as reader:
            assert sorted(reader["t"].df["step"]) == [0, 1, 100]
    with cox.Store(tmp_path / "runs", "run", mode="r") as reader:
        assert sorted(reader["t"].df["step"]) == [0, 1, 100]


def test_a_row_that_comes_between_the_reading_and_the_removal_of_a_journal_stays(
    start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = start(RANK_THAT_IS_KILLED, tmp_path / "runs")
    assert second.line() == "stored"
    replace = fs.replace_file

    def meanwhile(path: Path, *args: Any, **named: Any) -> None:
        replace(path, *args, **named)
        if path.name == layout.STORE_FILE:
            second.tell()
            assert second.line() == "stored"
            second.kill()

    with cox.Store(tmp_path / "runs", "run", rank=0) as first:
        first.add_table("t", {"step": int}).append_row({"step": 100})
        with monkeypatch.context() as patch:
            patch.setattr(fs, "replace_file", meanwhile)
            first._writer.fold_if_it_helps()  # type: ignore[union-attr]
        assert second.process.returncode is not None
        with cox.Store(tmp_path / "runs", "run", mode="r") as reader:
            assert sorted(reader["t"].df["step"]) == [0, 1, 100]


# --- Whoever comes in between


def between_journals_and_store_file(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Have something happen after a reader read the journals, and before it reads the store file."""
    is_empty, done = empty.is_empty, threading.Event()

    def overtaken(path: Path) -> bool:
        if not done.is_set():
            done.set()
            meanwhile()
        return is_empty(path)

    monkeypatch.setattr(empty, "is_empty", overtaken)


def test_a_reader_overtaken_by_folds_and_rewinds_sees_one_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cox.Store(tmp_path, "run")
    table = store.add_table("t", {"step": int})
    for step in range(5):
        table.append_row({"step": step})

    def meanwhile() -> None:
        store.rewind("t", 3, purge_tensorboard=False)
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        table.append_row({"step": 30})
        store._writer.fold_if_it_helps()  # type: ignore[union-attr]
        table.append_row({"step": 40})

    reader = cox.Store(tmp_path, "run", mode="r")
    between_journals_and_store_file(monkeypatch, meanwhile)
    assert reader["t"].df["step"].tolist() in ([0, 1, 2, 3, 4], [0, 1, 2, 30], [0, 1, 2, 30, 40])
    assert reader["t"].df["step"].tolist() == [0, 1, 2, 30, 40]
    store.close()


def test_a_reader_overtaken_by_a_new_beginning_sees_the_new_tables_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = cox.Store(tmp_path, "run")
    old.add_table("t", {"old": int, "both": str}).append_row({"old": 1, "both": ""})
    reader = cox.Store(tmp_path, "run", mode="r")

    def meanwhile() -> None:
        old.close()
        with cox.Store(tmp_path, "run", mode="w") as new:
            new.add_table("t", {"both": str, "new": float}).append_row({"both": "x", "new": 0.5})

    between_journals_and_store_file(monkeypatch, meanwhile)
    assert reader["t"].df.to_dict("list") == {"both": ["x"], "new": [0.5]}


def test_a_rank_that_opens_while_another_closes_leaves_its_fold_alone(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = cox.Store(tmp_path, "run", rank=0)
    store.add_table("t", {"step": int}).append_row({"step": 0})
    (tmp_path / "run" / ".tmp-left-by-a-kill").touch()
    go, ready = Counter(tmp_path / "go"), Counter(tmp_path / "ready")
    go.value = 1
    others: list[Child] = []
    write = hdf5.write

    def write_and_be_disturbed(path: Path, *args: object, **options: object) -> None:
        write(path, *args, **options)  # type: ignore[arg-type]
        if not others:
            args_ = (str(tmp_path), 1, str(tmp_path / "go"), str(tmp_path / "ready"))
            others.append(zygote.start("tests.crash.children:open_as_rank", *args_))
            claim = layout.RunLayout(tmp_path / "run").claim_file("rank-1")
            wait_until(lambda: claim.exists() and claim.read_bytes())
            deadline = time.monotonic() + 1  # it may wait for us, or sweep before it does
            while path.exists() and not ready.value and time.monotonic() < deadline:
                time.sleep(0.001)
            assert path.exists(), "a file that is being written was swept away"

    monkeypatch.setattr(hdf5, "write", write_and_be_disturbed)
    try:
        store.close()
        assert caplog.text == ""
        wait_until(lambda: ready.value)
    finally:
        end(*others)
    monkeypatch.undo()
    cox.Store(tmp_path, "run", rank=0).close()
    with cox.Store(tmp_path, "run", mode="r") as reader:
        assert sorted(reader["t"].df["rank"]) == [0, 1]
    assert invariants.leftovers(tmp_path / "run") == []


def test_mode_w_beside_another_rank_drops_none_of_its_rows(tmp_path: Path) -> None:
    for rank in (0, 1, 2):
        with cox.Store(tmp_path, "run", rank=rank) as store:
            store.add_table("t", {"step": int, "what": cox.PICKLE}).append_row({"step": rank, "what": rank})
    live = cox.Store(tmp_path, "run", rank=0)
    table = live["t"]
    table.append_row({"step": 10, "what": 10})
    anew = cox.Store(tmp_path, "run", rank=1, mode="w")
    table.append_row({"step": 20, "what": 20})
    assert anew["t"].nrows == 0
    anew["t"].append_row({"step": 11, "what": 11})

    def check() -> None:
        with cox.Store(tmp_path, "run", mode="r") as reader:
            assert sorted(zip(reader["t"].df["rank"], reader["t"].df["step"], strict=True)) == [
                (0, 0),
                (0, 10),
                (0, 20),
                (1, 11),
            ]
            assert [reader["t"].get_pickle(uid) for uid in reader["t"].df["what"]] == list(
                reader["t"].df["step"]
            )

    check()
    live.close()
    anew.close()
    check()


def test_mode_w_by_all_ranks_at_once_begins_anew(tmp_path: Path) -> None:
    for _ in range(2):
        stores = [cox.Store(tmp_path, "run", rank=rank, mode="w") for rank in range(3)]
        for rank, store in enumerate(stores):
            store.add_table("t", {"step": int}).append_row({"step": rank})
        for store in stores:
            store.close()
        with cox.Store(tmp_path, "run", mode="r") as reader:
            assert sorted(reader["t"].df["step"]) == [0, 1, 2]


# --- Nobody waits for anybody


def in_time(work: Callable[[], object], seconds: float = PATIENCE / 2) -> None:
    """Fail if `work` waits."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for a lock"
    if failure:
        raise failure[0]


def test_readers_and_rows_wait_for_no_lock(tmp_path: Path) -> None:
    store = cox.Store(tmp_path, "run")
    table = store.add_table("t", {"step": int})
    table.append_row({"step": 0})
    store._writer.fold_at = 200  # type: ignore[union-attr]
    lock = os.open(layout.RunLayout(tmp_path / "run").fold_lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody folds, or was stopped while folding

        def read() -> None:
            with cox.Store(tmp_path, "run", mode="r") as reader, cox.CollectionReader(tmp_path) as collection:
                assert len(reader["t"].df) == len(collection.df("t")) == table.nrows

        in_time(read)
        in_time(lambda: [table.append_row({"step": step}) for step in range(1, 100)])
        in_time(read)
    finally:
        os.close(lock)
    store.close()
    assert invariants.observe(tmp_path, "run")["t"][1] == [{"step": step} for step in range(100)]


def test_readers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cox.Store, "heartbeat", lambda _: None)  # the writer's, which may come meanwhile
    store = cox.Store(tmp_path, "run")
    store.add_table("t", {"step": int}).append_row({"step": 0})

    def everything() -> dict[str, tuple[int, int]]:
        return {
            str(path.relative_to(tmp_path)): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in sorted(tmp_path.rglob("*"))
        }

    before = everything()
    with cox.Store(tmp_path, "run", mode="r") as reader, cox.CollectionReader(tmp_path) as collection:
        assert len(reader["t"].df) == len(collection.df("t")) == 1
        assert str(reader)
        assert collection.tables == {"t"}
    assert everything() == before
    store.close()


# --- Fork

FORKED = """
    import os, signal, sys, warnings
    import cox
    from cox.errors import ForkError

    warnings.simplefilter("ignore", DeprecationWarning)  # that threads and fork do not mix; here they must

    def refused(what):
        try:
            what()
        except ForkError as error:
            assert sys.argv[1] in str(error) and "rank=" in str(error)
        else:
            raise AssertionError("the parent's store was written by a child")

    store = cox.Store(sys.argv[1], "run")
    table = store.add_table("t", {"step": int, "thing": cox.PICKLE})
    store.writer.add_scalar("before", 1.0, 0)
    for step, how in enumerate(["exit", "_exit", "close", "own"]):
        table.update_row({"step": step, "thing": [step]})
        child = os.fork()
        if child == 0:
            signal.alarm(240)  # a child that hangs is killed, and its parent says so
            refused(lambda: table.append_row({"step": 9, "thing": [9]}))
            refused(lambda: table.update_row({"thing": [9]}))
            refused(lambda: table.flush_row())
            refused(lambda: table.add_column("late", int))
            refused(lambda: store.rewind("t", 0))
            refused(lambda: store.add_table("other", {"a": int}).append_row({"a": 1}))
            assert table.nrows == step
            if how == "close":
                store.close()
            if how == "own":
                with cox.Store(sys.argv[1], "run", rank=1) as own:
                    own.add_table("own", {"a": int}).append_row({"a": 1})
            if how == "_exit":
                os._exit(0)
            sys.exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            table.update_row({"step": -1, "thing": None})
            table.flush_row()
            sys.exit(f"the child that ends by {how} ended with {status}")
        table.flush_row()
    table.append_row({"step": 4, "thing": [4]})
    assert [table.get_pickle(uid) for uid in table.df["thing"]] == [[step] for step in range(5)]
    store.writer.add_scalar("after", 1.0, 1)
    store.close()
    print("fine")
"""


def test_a_forked_child_leaves_its_parents_run_alone(run: Callable[..., list[str]], tmp_path: Path) -> None:
    assert run(FORKED, tmp_path)[-1] == "fine"
    with cox.Store(tmp_path, "run", mode="r") as store:
        assert store["t"].df["step"].tolist() == list(range(5))
        assert store["own"].df["a"].tolist() == [1]
    assert invariants.leftovers(tmp_path / "run") == []
