"""What a table does at its edges: rewound to nothing, written by threads, with a `rank` of its own."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cox.errors import RewindError
from cox.readers import CollectionReader
from cox.storage import hdf5
from cox.store import OBJECT, PICKLE, Store, Table


def rows(out: Path) -> dict[str, list[Any]]:
    """The run's table as a reader in another process would have it."""
    with Store(out, "run", mode="r") as reader:
        return reader["t"].df.to_dict("list")


def numbered(store: Store, count: int, **schema: Any) -> Any:
    table = store.add_table("t", {"x": int, **schema})
    for x in range(count):
        table.append_row({"x": x})
    return table


# --- rewind


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("keep", [0, 1, 3])
def test_rows_go_on_after_a_rewind(out: Path, folded: bool, keep: int) -> None:
    store = Store(out, "run")
    table = numbered(store, 3)
    if folded:
        store.close()
        store = Store(out, "run")
        table = store["t"]
    with store:
        table.rewind(keep)
        assert table.df["x"].tolist() == list(range(keep))
        assert table.nrows == keep
        table.append_row({"x": 10})
        table.append_row({"x": 11})
        assert table.df["x"].tolist() == [*range(keep), 10, 11]
        assert rows(out)["x"] == [*range(keep), 10, 11]
    assert rows(out)["x"] == [*range(keep), 10, 11]


@pytest.mark.parametrize("keep", [0, 2])
def test_a_column_can_be_added_after_a_rewind(out: Path, keep: int, caplog: pytest.LogCaptureFixture) -> None:
    with Store(out, "run") as store:
        table = numbered(store, 3)
        table.rewind(keep)
        table.add_column("y", str)
        table.append_row({"x": 10, "y": "a"})
        assert table.df["y"].tolist()[-1] == "a"
    assert rows(out)["y"][-1] == "a"
    assert rows(out)["x"] == [*range(keep), 10]
    assert not caplog.records


def test_rewinding_to_a_step_keeps_the_rows_before_it(out: Path) -> None:
    with Store(out, "run") as store:
        table = store.add_table("t", {"step": int, "x": int | None})
        for step in range(0, 50, 10):
            table.append_row({"step": step})
        assert table.rewind(step=25) == 3
        assert table.df["step"].tolist() == [0, 10, 20]
        assert table.rewind(step=1000) == 3
        with pytest.raises(RewindError, match="'epoch'.*step"):
            table.rewind(step=1, column="epoch")
        with pytest.raises(RewindError, match="4 rows, it has 3"):
            table.rewind(4)
        with pytest.raises(RewindError, match="one of them"):
            table.rewind()
        with pytest.raises(RewindError, match="-1"):
            table.rewind(-1)
        assert table.nrows == 3


def test_a_rewind_of_the_sole_writer_leaves_the_rows_of_ranks(out: Path) -> None:
    for rank in (0, 1):
        with Store(out, "run", rank=rank) as store:
            numbered(store, 2)
    with Store(out, "run") as store:
        table = store["t"]
        table.append_row({"x": 5})
        assert len(table.df) == 5
        table.rewind(0)
        assert sorted(table.df["x"].tolist()) == [0, 0, 1, 1]
    assert sorted(rows(out)["x"]) == [0, 0, 1, 1]
    with Store(out, "run", rank=1) as store:
        store["t"].rewind(1)
        assert sorted(store["t"].df["x"].tolist()) == [0, 0, 1]


# --- a column that happens to be called `rank`


@pytest.mark.parametrize("kind", [int, str, int | None])
def test_a_rank_of_the_users_is_a_column_like_any_other(out: Path, kind: Any) -> None:
    value = "r7" if kind is str else 7
    schema = {"rank": kind, "x": int}
    for session in range(2):
        with Store(out, "run") as store:
            table = store.add_table("t", schema)
            for x in range(3):
                table.append_row({"rank": value, "x": 3 * session + x})
            assert list(table.df) == ["rank", "x"]
    assert list(rows(out)) == ["rank", "x"]
    with CollectionReader(out) as reader:
        assert list(reader.df("t")) == ["rank", "x", "exp_id"]
    with Store(out, "run") as store:
        store["t"].rewind(4)
        assert store["t"].df["x"].tolist() == [0, 1, 2, 3]
        store["t"].append_row({"rank": value, "x": 10})
    assert rows(out) == {"rank": [value] * 5, "x": [0, 1, 2, 3, 10]}


# --- threads


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread gets its turn wherever a row has its values and is not written yet."""
    flush = Table.flush_row

    def flush_later(table: Table) -> None:
        threading.Event().wait(0.001)
        flush(table)

    monkeypatch.setattr(Table, "flush_row", flush_later)


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("kind", [str, OBJECT, PICKLE])
def test_rows_of_threads_do_not_mix(out: Path, kind: Any) -> None:
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for x in range(25):
                table.append_row({"thread": thread, "x": x, "o": f"{thread}/{x}"})
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    with Store(out, "run") as store:
        table = store.add_table("t", {"thread": int, "x": int, "o": kind})
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    with CollectionReader(out) as reader:
        frame = reader.df("t")
    assert len(frame) == 100
    for number in range(4):
        own = frame[frame["thread"] == number]
        assert own["x"].tolist() == list(range(25))
        assert own["o"].tolist() == [f"{number}/{x}" for x in range(25)]


def test_a_run_is_opened_again_while_another_thread_closes_it(out: Path) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(30):
                with Store(out, "run") as store:
                    store.add_table("t", {"x": int}).append_row({"x": 0})
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert rows(out)["x"] == [0] * 90


# --- folding


@pytest.mark.parametrize(
    "error", [RuntimeError("unable to flush"), OSError(28, "no space"), MemoryError(), ValueError("h5py")]
)
def test_a_fold_that_fails_does_not_fail_the_row(
    out: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is in the journal by then: who is told that it failed would write it again."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "write", fail)
        with Store(out, "run") as store:
            table = numbered(store, 1)
            table._state.writer.fold_at = 1
            table.append_row({"x": 1})
            table.append_row({"x": 2})
            assert table.df["x"].tolist() == [0, 1, 2]
        assert "fold" in caplog.text
        assert rows(out)["x"] == [0, 1, 2]
    with Store(out, "run") as store:
        assert store["t"].df["x"].tolist() == [0, 1, 2]
    assert rows(out)["x"] == [0, 1, 2]
