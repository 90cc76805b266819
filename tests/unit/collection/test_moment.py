"""A call of a reader sees its runs at one moment, however often it looks at them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import cox
from cox.cli import main
from cox.collection import reading
from cox.collection.moment import Moment
from cox.readers import CollectionReader
from cox.storage import layout, snapshot
from tests.caching import kept_at_once, segments_of, settle

Call = Callable[[CollectionReader, Path], Any]


def make(folder: Path, name: str, rows: int = 3, **options: Any) -> cox.Store:
    """A run with metadata and two tables, still open: its rows are in its journal."""
    store = cox.Store(folder, name, **options)
    params = {"lr": 0.1, "seed": int(name[-1])}
    store.add_table_like_example("metadata", params).append_row(params)
    store.add_table("results", {"step": int, "loss": float})
    store.add_table("other", {"x": int})
    grow(store, rows)
    return store


def grow(store: cox.Store, rows: int = 1) -> None:
    first = store["results"].nrows
    for step in range(first, first + rows):
        store["results"].append_row({"step": step, "loss": 1.0 / (1 + step)})
        store["other"].append_row({"x": step})


CALLS: dict[str, Call] = {
    "df": lambda reader, out: reader.df("results"),
    "df, some runs": lambda reader, out: reader.df("results", params={"lr": 0.1}),
    "runs": lambda reader, out: reader.runs(),
    "runs, some": lambda reader, out: reader.runs(params="seed < 9"),
    "params": lambda reader, out: reader.params(),
    "wide": lambda reader, out: reader.wide(),
    "wide, some runs": lambda reader, out: reader.wide(params={"lr": 0.1}),
    "compare": lambda reader, out: reader.compare("results", "loss", over="seed"),
    "compare, some runs": lambda reader, out: reader.compare(
        "results", "loss", over="seed", params={"lr": 0.1}
    ),
    "diff": lambda reader, out: reader.diff(reader.exp_ids[0], reader.exp_ids[1]),
    "plot": lambda reader, out: reader.plot("results", y="loss", params={"lr": 0.1}, path=out / "p.png"),
    "arrow": lambda reader, out: reader.arrow("results", params={"lr": 0.1}),
    "dask": lambda reader, out: reader.dask("results", params={"lr": 0.1}),
    "sql": lambda reader, out: reader.sql(
        "select * from results join other using (exp_id) join params using (exp_id) join runs using (exp_id)"
    ),
    "to_parquet": lambda reader, out: reader.to_parquet(out / "exported", params={"lr": 0.1}),
    "tables": lambda reader, out: reader.tables,
    "_repr_html_": lambda reader, out: reader._repr_html_(),
}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the state of each run is looked up, and the index of the cache loaded, from now on."""
    counts: Counter[str] = Counter()
    state_of, cache = reading.state_of, reading.Cache

    def counted_state(root: str, *known: Any) -> Any:
        counts[Path(root).name] += 1
        return state_of(root, *known)

    def counted_cache(folder: Path | None) -> Any:
        counts["index"] += 1
        return cache(folder)

    monkeypatch.setattr(reading, "state_of", counted_state)
    monkeypatch.setattr(reading, "Cache", counted_cache)
    return counts


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs that ended."""
    for name in ("run1", "run2"):
        make(tmp_path / "runs", name).close()
    return tmp_path / "runs"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kept", [False, True])
def test_a_call_looks_once(
    runs: Path, tmp_path: Path, looks: Counter[str], monkeypatch: pytest.MonkeyPatch, call: str, kept: bool
) -> None:
    if kept:
        kept_at_once(monkeypatch)
        settle(runs)
        CollectionReader(runs, cache=True).to_parquet(tmp_path / "first")
        assert segments_of(runs)
    looks.clear()
    CALLS[call](CollectionReader(runs, cache=None), tmp_path)
    assert looks == {"run1": 1, "run2": 1, "index": 1}


@pytest.mark.parametrize("command", [["ls"], ["ls", "--sort", "results.loss"], ["ls", "--state", "finished"]])
def test_a_command_looks_once(runs: Path, looks: Counter[str], command: list[str]) -> None:
    assert CliRunner().invoke(main, [*command, str(runs)]).exit_code == 0
    assert looks == {"run1": 1, "run2": 1, "index": 1}


# --- What happens between two looks


def between(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], *, after: int) -> list[str]:
    """Have something happen after so many looks into the files of runs. Returns what was looked into."""
    seen: list[str] = []
    read = snapshot.read

    def looked(run: layout.RunLayout, **options: Any) -> snapshot.Snapshot:
        found = read(run, **options)
        seen.append(run.root.name)
        if len(seen) == after:
            change()
        return found

    monkeypatch.setattr(snapshot, "read", looked)
    return seen


def add_table(store: cox.Store) -> None:
    store.add_table("late", {"y": int}).append_row({"y": 1})


def fold_it(store: cox.Store) -> None:
    grow(store)
    store.close()


CHANGES: dict[str, Callable[[cox.Store], None]] = {
    "rows": lambda store: grow(store, 2),
    "a table": add_table,
    "a fold": fold_it,
}


def told(result: Any) -> Any:
    """What a call has said, to be compared."""
    return result.to_csv() if hasattr(result, "to_csv") else result


#: The calls that look into the files of a run more than once, and what they show of it without its state.
SEVERAL: dict[str, Call] = {
    "df": CALLS["df, some runs"],
    "runs": lambda reader, out: reader.runs().drop(columns=["state", "duration"]),
    "wide": CALLS["wide"],
    "compare": CALLS["compare, some runs"],
    "diff": lambda reader, out: reader.diff("run1", "run2").query("section == 'results'"),
    "sql": lambda reader, out: reader.sql(
        "select exp_id, max(step) as step, max(x) as x, max(loss) as loss "
        "from results join other using (exp_id) group by exp_id order by exp_id"
    ),
    "to_parquet": lambda reader, out: (
        reader.to_parquet(out / "exported"),
        CollectionReader(out / "exported").wide().to_csv(),
    )[1],
}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[cox.Store]:
    """The first of two runs, which goes on."""
    folder = tmp_path / "runs"
    make(folder, "run2", 5).close()
    with make(folder, "run1") as store:
        yield store


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("call", SEVERAL)
def test_a_call_sees_one_moment(
    live: cox.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, change: str
) -> None:
    reader = CollectionReader(tmp_path / "runs", cache=False)
    (tmp_path / "before").mkdir()
    expected = told(SEVERAL[call](reader, tmp_path / "before"))
    seen = between(monkeypatch, lambda: CHANGES[change](live), after=2)
    (tmp_path / "after").mkdir()
    assert told(SEVERAL[call](reader, tmp_path / "after")) == expected
    assert len(seen) > 2, "there was no second look"


def test_a_column_that_comes_meanwhile_is_not_seen(
    live: cox.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_column() -> None:
        live["results"].add_column("more", float)
        live["results"].append_row({"step": 9, "loss": 9.0, "more": 9.0})

    between(monkeypatch, add_column, after=2)
    frame = CollectionReader(tmp_path / "runs").df("results", params={"lr": 0.1})
    assert frame.columns.tolist() == ["step", "loss", "exp_id"]
    assert frame.loc[frame["exp_id"] == "run1", "step"].tolist() == [0, 1, 2]


def test_ranks_that_write_and_join_meanwhile_are_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of several ranks stand between each other: each rank's own are counted."""

    def write(rank: int, *steps: int) -> None:
        with cox.Store(tmp_path, "run1", rank=rank) as store:
            for name, kinds in (("metadata", {"lr": float}), ("results", {"step": int})):
                store.add_table(name, kinds)
            if not store["metadata"].nrows:
                store["metadata"].append_row({"lr": 0.1})
            for step in steps:
                store["results"].append_row({"step": step})

    def go_on() -> None:
        for rank in (1, 0, 2):
            write(rank, 5, 6)

    write(1, 0, 1)
    write(0, 0, 1, 2)
    expected = CollectionReader(tmp_path).df("results", params={"lr": 0.1}).sort_values(["rank", "step"])
    between(monkeypatch, go_on, after=1)
    frame = CollectionReader(tmp_path).df("results", params={"lr": 0.1}).sort_values(["rank", "step"])
    assert frame[["rank", "step"]].values.tolist() == expected[["rank", "step"]].values.tolist()
    assert len(CollectionReader(tmp_path).df("results")) == 11


def test_the_first_rank_beside_a_sole_writer_is_not_seen(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def join() -> None:
        with cox.Store(runs, "run1", rank=1) as store:
            store.add_table("results", {"step": int, "loss": float})
            store["results"].append_row({"step": 7, "loss": 7.0})

    expected = CollectionReader(runs).df("results", params={"lr": 0.1})
    between(monkeypatch, join, after=2)
    pd.testing.assert_frame_equal(CollectionReader(runs).df("results", params={"lr": 0.1}), expected)


def test_what_is_not_kept_any_more_is_read_as_it_was_kept(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another reader, of a later moment, removes the segments that this one knows."""
    kept_at_once(monkeypatch)
    settle(runs)
    reader = CollectionReader(runs, cache=True)
    reader.wide()
    settle(runs)
    expected = reader.wide()
    now = Moment(reader.source)
    assert now.tables_of(["run1", "run2"]) == ["results", "other"]
    with cox.Store(runs, "run1") as store:
        grow(store)
    for path in segments_of(runs):
        path.unlink()
    rows = now.read(["run1", "run2"], "results")
    assert [int(block.lengths.sum()) for block in rows.blocks] == [6]
    assert reader.wide()["results.step.max"].tolist() == [3, 2]
    assert expected["results.step.max"].tolist() == [2, 2]


def test_a_run_that_is_said_to_have_ended_has_all_its_rows(
    live: cox.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        grow(live)
        live.close()

    between(monkeypatch, end, after=2)
    frame = CollectionReader(tmp_path / "runs").runs()
    assert frame.loc["run1", ["state", "results.step"]].tolist() == ["running", 2]
    frame = CollectionReader(tmp_path / "runs").runs()
    assert frame.loc["run1", ["state", "results.step"]].tolist() == ["finished", 3]


@pytest.mark.parametrize("where", ["lr < 1", None])
def test_a_listed_run_that_is_said_to_have_ended_has_all_its_rows(
    live: cox.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str | None
) -> None:
    def end() -> None:
        grow(live)
        live.close()

    between(monkeypatch, end, after=2)
    words = ["ls", str(tmp_path / "runs"), "--json", *(["--where", where] if where else [])]
    runs = {run["id"]: run for run in json.loads(CliRunner().invoke(main, words).stdout)["runs"]}
    shown = runs["run1"]["state"], runs["run1"]["last"]["results"]["step"]
    assert shown == (("finished", 3) if where else ("running", 2))
