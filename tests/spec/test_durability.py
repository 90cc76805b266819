"""SPEC C16 and C24: a flushed row survives its process, and many processes write beside each other."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cox.errors import RunInUseError
from cox.readers import CollectionReader
from cox.store import Store
from tests.spec.frames import listing

LOGGER = """
    import sys
    import cox.storage.writer
    from cox.store import OBJECT, PICKLE, Store

    cox.storage.writer.FOLD_AT = int(sys.argv[2])
    store = Store(sys.argv[1], "run")
    table = store.add_table("t", {"step": int, "loss": float, "note": str, "o": OBJECT, "p": PICKLE})
    while True:
        step = table.nrows
        row = {"step": step, "loss": step / 3, "note": "é" * (step % 50)}
        table.append_row({**row, "o": {"s": step}, "p": [step]})
        print(step)
"""


@pytest.mark.parametrize("fold_at", [1 << 25, 4000], ids=["journal", "folding"])
def test_c16_a_flushed_row_survives_a_kill_at_any_moment(
    out: Path, start: Callable[..., Any], fold_at: int
) -> None:
    acknowledged = -1
    for extra in (0, 1, 37):
        program = start(LOGGER, out, fold_at)
        for _ in range(20 + extra):
            acknowledged = int(program.line())
        program.kill()
        acknowledged = max([acknowledged, *map(int, program.rest())])
        with Store(out, "run", mode="r") as reader:  # before anybody recovers it
            _check(reader["t"].df, acknowledged)
    with CollectionReader(out) as reader:
        frame = reader.df("t")
        assert frame["o"].tolist() == [{"s": step} for step in frame["step"]]
        assert frame["p"].tolist() == [[step] for step in frame["step"]]
    with Store(out, "run") as store:
        rows = store["t"].nrows
        store["t"].append_row(
            {"step": rows, "loss": rows / 3, "note": "é" * (rows % 50), "o": {"s": rows}, "p": [rows]}
        )
    frame = pd.read_hdf(out / "run" / "store.h5", "t")
    assert len(frame) == rows + 1
    _check(frame, rows)


def _check(frame: pd.DataFrame, acknowledged: int) -> None:
    steps = frame["step"].tolist()
    assert steps == list(range(len(steps)))
    assert len(steps) - 1 in (
        acknowledged,
        acknowledged + 1,
    )  # the last may have been written, and not yet said
    assert frame["loss"].tolist() == [step / 3 for step in steps]
    assert frame["note"].tolist() == ["é" * (step % 50) for step in steps]


def test_c16_the_first_row_of_all_survives(out: Path, start: Callable[..., Any]) -> None:
    program = start(
        """
        import os, signal, sys
        from cox.store import Store

        Store(sys.argv[1], "run").add_table("t", {"x": int}).append_row({"x": 1})
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        out,
    )
    program.finish(status=-9)
    with CollectionReader(out) as reader:
        assert reader.df("t")["x"].tolist() == [1]
    with Store(out, "run") as store:
        assert store["t"].df["x"].tolist() == [1]


@pytest.mark.parametrize("end", ["os._exit(1)", "os.abort()", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_c16_other_sudden_ends(out: Path, start: Callable[..., Any], end: str) -> None:
    program = start(
        f"""
        import os, resource, signal, sys
        from cox.store import Store

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        table = Store(sys.argv[1], "run").add_table("t", {{"x": int}})
        for x in range(10):
            table.append_row({{"x": x}})
        {end}
        """,
        out,
    )
    program.rest()
    assert program.process.returncode != 0
    with Store(out, "run") as store:
        assert store["t"].df["x"].tolist() == list(range(10))


# --- C24

WORKER = """
    import sys
    from cox.store import Store

    print("ready")
    sys.stdin.readline()
    store = Store(sys.argv[1])
    table = store.add_table("t", {"worker": int, "x": int, "s": str})
    for x in range(200):
        table.append_row({"worker": int(sys.argv[2]), "x": x, "s": "é" * (x % 7)})
    print(store.exp_id)
"""


def test_c24_eight_processes_at_once_make_eight_stores(out: Path, start: Callable[..., Any]) -> None:
    folder = out / "made by whoever comes first"
    workers = [start(WORKER, folder, number) for number in range(8)]
    for worker in workers:
        assert worker.line() == "ready"
    for worker in workers:
        worker.tell()
    names = [worker.finish()[0] for worker in workers]
    assert all(worker.errors == "" for worker in workers)
    assert sorted(name for name in listing(folder) if not name.startswith(".")) == sorted(names)
    with CollectionReader(folder) as reader:
        frame = reader.df("t")
    assert len(frame) == 1600
    for number, name in enumerate(names):
        own = frame[frame["exp_id"] == name]
        assert own["worker"].tolist() == [number] * 200
        assert own["x"].tolist() == list(range(200))
        assert own["s"].tolist() == ["é" * (x % 7) for x in range(200)]


SAME_RUN = """
    import sys
    from cox.errors import RunInUseError
    from cox.store import Store

    print("ready")
    sys.stdin.readline()
    try:
        store = Store(sys.argv[1], "run")
    except RunInUseError:
        print("refused")
        raise SystemExit
    table = store.add_table("t", {"x": int})
    for x in range(100):
        table.append_row({"x": x})
    print("wrote")
    sys.stdin.readline()
"""


def test_c24_of_many_that_start_the_same_run_at_once_one_writes_and_loses_nothing(
    out: Path, start: Callable[..., Any]
) -> None:
    """As every rank of a torchrun job does that knows nothing of `rank=`."""
    workers = [start(SAME_RUN, out) for _ in range(5)]
    for worker in workers:
        assert worker.line() == "ready"
    for worker in workers:
        worker.tell()
    said = {worker: worker.line() for worker in workers}
    assert sorted(said.values()) == ["refused"] * 4 + ["wrote"]
    for worker in workers:
        worker.finish()
    with Store(out, "run", mode="r") as store:
        assert store["t"].df["x"].tolist() == list(range(100))


def test_c24_a_second_writer_is_refused_with_pid_and_host(out: Path, start: Callable[..., Any]) -> None:
    program = start(SAME_RUN, out)
    assert program.line() == "ready"
    program.tell()
    assert program.line() == "wrote"
    for mode in ("a", "w"):
        with pytest.raises(RunInUseError) as refused:
            Store(out, "run", mode=mode)
        text = str(refused.value)
        for told in (
            f"process {program.pid} ",
            f"host {socket.gethostname()}",
            os.fspath(out / "run"),
            "rank=",
            "mode='r'",
        ):
            assert told in text
        assert isinstance(refused.value, OSError)
    with Store(out, "run", mode="r") as reader:
        assert len(reader["t"].df) == 100
    program.kill()
    with Store(out, "run") as store:  # a dead one's claim is nobody's
        assert len(store["t"].df) == 100
        store["t"].append_row({"x": 100})
        assert store["t"].df["x"].tolist() == list(range(101))


RANK = """
    import sys
    from cox.store import Store

    print("ready")
    sys.stdin.readline()
    rank = int(sys.argv[2])
    with Store(sys.argv[1], "run", rank=rank) as store:
        table = store.add_table("t", {"x": int, "y": float})
        for x in range(100):
            table.append_row({"x": x, "y": rank + x / 100})
        assert table.nrows == 100
        print("wrote")
        sys.stdin.readline()
"""


def test_c24_ranks_write_one_run_together(out: Path, start: Callable[..., Any]) -> None:
    ranks = [start(RANK, out, rank) for rank in range(3)]
    for step in ("ready", "wrote"):
        for rank in ranks:
            assert rank.line() == step
        if step == "ready":
            for rank in ranks:
                rank.tell()
    with Store(out, "run", mode="r") as reader:
        _check_ranks(reader["t"].df)
    with pytest.raises(RunInUseError, match=str(ranks[1].pid)):
        Store(out, "run", rank=1)
    ranks[0].kill()
    for rank in ranks[1:]:
        rank.tell()
        rank.finish()
    with CollectionReader(out) as reader:
        _check_ranks(reader.df("t"))
    with Store(out, "run", rank=0) as again:  # the killed one goes on
        table = again.add_table("t", {"x": int, "y": float})
        assert table.nrows == 100
        table.append_row({"x": 100, "y": 0.5})
    with Store(out, "run", mode="r") as reader:
        frame = reader["t"].df
        assert len(frame) == 301
        assert frame[frame["rank"] == 0]["x"].tolist() == list(range(101))
    assert len(pd.read_hdf(out / "run" / "store.h5", "t")) == 301


def _check_ranks(frame: pd.DataFrame) -> None:
    assert [name for name in frame if name != "exp_id"] == ["x", "y", "rank"]
    assert len(frame) == 300
    assert list(frame.index) == list(range(300))
    for rank in range(3):
        own = frame[frame["rank"] == rank]
        assert own["x"].tolist() == list(range(100))
        assert own["y"].tolist() == [rank + x / 100 for x in range(100)]


def test_c24_the_rank_column_belongs_to_cox(out: Path) -> None:
    with Store(out, "run", rank=2) as store:
        table = store.add_table("t", {"rank": int, "x": int})
        table.append_row({"x": 1})
        table.append_row({"x": 2, "rank": 2})
        with pytest.raises(ValueError, match="rank is 2"):
            table.update_row({"rank": 1})
        assert table.df["rank"].tolist() == [2, 2]
        assert table.df["x"].tolist() == [1, 2]
        with pytest.raises(ValueError, match="'rank'"):
            store.add_table("u", {"rank": str})
    for wrong in (-1, True, "0", 1.0):
        with pytest.raises(ValueError, match="rank="):
            Store(out, "run", rank=wrong)  # type: ignore[arg-type]


def test_c24_a_forked_child_is_told_to_open_its_own(out: Path, run: Callable[..., list[str]]) -> None:
    printed = run(
        """
        import os, sys
        from cox.errors import ForkError
        from cox.store import Store

        store = Store(sys.argv[1], "run")
        table = store.add_table("t", {"x": int})
        table.append_row({"x": 1})
        child = os.fork()
        if child == 0:
            try:
                table.append_row({"x": 2})
            except ForkError as error:
                assert "rank=" in str(error), error
                Store(sys.argv[1], "of the child").add_table("t", {"x": int}).append_row({"x": 3})
                print("refused", flush=True)
                sys.exit(0)
            sys.exit(1)
        assert os.waitpid(child, 0)[1] == 0
        table.append_row({"x": 4})
        """,
        out,
    )
    assert printed == ["refused"]
    with Store(out, "run", mode="r") as store, Store(out, "of the child", mode="r") as child:
        assert store["t"].df["x"].tolist() == [1, 4]
        assert child["t"].df["x"].tolist() == [3]
