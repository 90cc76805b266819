"""The Parquet copy is a copy: no run, row, column or value goes or changes, and it can be read back."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cox
from cox.collection.dataset import directory_of
from cox.errors import CollectionWarning, DamagedError, ExportError, ReadOnlyError
from cox.exports import parquet
from cox.readers import CollectionReader

pq = pytest.importorskip("pyarrow.parquet")

EXAMPLES = int(os.environ.get("COX_PROPERTY_EXAMPLES", "60")) // 3


def log(folder: Path, name: str, table: str = "results", /, *rows: dict[str, Any], **types: Any) -> None:
    with cox.Store(folder, name) as store:
        made = store.add_table(table, types)
        for row in rows:
            made.append_row(row)


def reader(*folders: Path) -> CollectionReader:
    return CollectionReader(list(folders), log_warnings=False)


def shown(value: Any) -> Any:
    """A cell, nan and the types of numbers told apart."""
    return (type(value).__name__, "nan" if isinstance(value, float) and math.isnan(value) else value)


def cells(table: Any) -> list[dict[str, Any]]:
    """The rows of an Arrow table, in an order that does not depend on how they were written."""
    rows = [{name: shown(row[name]) for name in sorted(row)} for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["exp_id"][1], str(row.get("step"))))


def stored(dest: Path, table: str = "results") -> list[dict[str, Any]]:
    return cells(pq.read_table(dest / table))


def same_frames(one: CollectionReader, other: CollectionReader) -> None:
    """That two readers give the same."""
    assert one.exp_ids == other.exp_ids
    assert one.schemas == other.schemas
    for table in one.schemas:
        left, right = one.df(table), other.df(table)
        pd.testing.assert_frame_equal(left, right)
        for name in left:
            pd.testing.assert_series_equal(left[name].isna(), right[name].isna())
    pd.testing.assert_frame_equal(one.params(), other.params())


# --- Nothing goes


def test_runs_of_two_folders_with_one_name_stay_both(tmp_path: Path) -> None:
    a, b, dest = tmp_path / "A", tmp_path / "B", tmp_path / "pq"
    log(a, "run", "results", {"step": 0, "x": 1.0}, step=int, x=float)
    log(b, "run", "results", {"step": 0, "x": 2.0}, step=int, x=float)
    reader(a).to_parquet(dest)
    reader(b).to_parquet(dest)
    assert stored(dest) == cells(reader(a, b).arrow("results"))
    log(a, "run", "results", {"step": 1, "x": 3.0}, step=int, x=float)
    assert reader(a).to_parquet(dest)["results"] == 1
    assert reader(b).to_parquet(dest)["results"] == 0
    assert stored(dest) == cells(reader(a, b).arrow("results"))


def test_a_folder_that_was_moved_holds_the_same_runs(tmp_path: Path) -> None:
    log(tmp_path / "runs", "run", "results", {"step": 0}, step=int)
    reader(tmp_path / "runs").to_parquet(tmp_path / "pq")
    (tmp_path / "runs").rename(tmp_path / "moved")
    log(tmp_path / "moved", "run", "results", {"step": 1}, step=int)
    reader(tmp_path / "moved").to_parquet(tmp_path / "pq")
    assert stored(tmp_path / "pq") == cells(reader(tmp_path / "moved").arrow("results"))


def test_a_copy_of_a_run_that_goes_on_is_another_run(tmp_path: Path) -> None:
    log(tmp_path / "a", "run", "results", {"step": 0}, step=int)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    log(tmp_path / "b", "run", "results", {"step": 1}, step=int)
    for folder in ("a", "b", "a"):
        reader(tmp_path / folder).to_parquet(tmp_path / "pq")
    assert stored(tmp_path / "pq") == cells(reader(tmp_path / "a", tmp_path / "b").arrow("results"))


def test_a_run_without_an_id_that_goes_on_replaces_itself_and_no_other(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "compat" / "golden"
    old = next(path for path in sorted(golden.rglob("store.h5")) if "COX_RUN" not in h5py.File(path).attrs)
    for folder in ("a", "b"):
        (tmp_path / folder / "run").mkdir(parents=True)
        shutil.copy(old, tmp_path / folder / "run" / "store.h5")
        reader(tmp_path / folder).to_parquet(tmp_path / "pq")
    tables = sorted(CollectionReader(tmp_path / "a").tables)
    back = reader(tmp_path / "pq")
    assert back.exp_ids == ["b/run", "run"]
    with cox.Store(tmp_path / "a", "run") as store:  # gets an id
        store.add_table("more", {"x": int}).append_row({"x": 1})
    reader(tmp_path / "a").to_parquet(tmp_path / "pq")
    assert reader(tmp_path / "pq").exp_ids == ["b/run", "run"]
    assert sorted(reader(tmp_path / "pq").tables) == sorted([*tables, "more"])


# --- No value changes


@pytest.mark.parametrize(
    ("types", "values", "kind", "wanted"),
    [
        ((int, float), (7, 0.5), "double", [7.0, 0.5]),
        ((bool, int), (True, 7), "double", [1.0, 7.0]),
        ((int, float), (2**53 + 1, 0.5), "string", [str(2**53 + 1), "0.5"]),
        ((int, int), (2**53 + 1, 1), "int64", [2**53 + 1, 1]),
        ((float, str), (1e-05, "auto"), "string", ["1e-05", "auto"]),
        ((float, cox.OBJECT), (0.5, None), "double", [0.5, None]),
        ((int, cox.OBJECT), (3, [1, 2]), "string", ["3", "[1, 2]"]),
        ((cox.OBJECT, cox.OBJECT), ([1], [2.5]), "list<element: double>", [[1.0], [2.5]]),
        ((cox.OBJECT, cox.OBJECT), ({"a": 1}, {"a": None}), "struct<a: int64>", [{"a": 1}, {"a": None}]),
        ((cox.OBJECT, cox.OBJECT), ({"a": 1}, {"b": 2}), "string", ['{"a": 1}', '{"b": 2}']),
        ((cox.OBJECT, cox.OBJECT), ([1, "a"], None), "string", ['[1, "a"]', None]),
        ((cox.OBJECT, cox.OBJECT), (np.arange(2), np.float32(0.5)), "string", ["[0, 1]", "0.5"]),
        ((float, float | None), (math.nan, None), "double", [math.nan, None]),
        ((int, str | None), (1, None), "string", ["1", None]),
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_types_widen_as_if_all_were_exported_at_once(
    tmp_path: Path, types: Any, values: Any, kind: str, wanted: list[Any], backwards: bool
) -> None:
    order = [1, 0] if backwards else [0, 1]
    for i in order:
        log(tmp_path / "runs", f"run{i}", "results", {"v": values[i]}, v=types[i])
        reader(tmp_path / "runs").to_parquet(tmp_path / "pq")
        (tmp_path / f"runs/run{i}").rename(tmp_path / f"run{i}")
    for i in order:
        (tmp_path / f"run{i}").rename(tmp_path / f"runs/run{i}")
    whole = reader(tmp_path / "runs").arrow("results")
    assert [shown(value) for value in whole["v"].to_pylist()] == [shown(value) for value in wanted]
    assert str(whole.schema.field("v").type).replace("item", "element") == kind
    assert stored(tmp_path / "pq") == cells(whole)
    assert stored(tmp_path / "pq", "results") == cells(pq.read_table(tmp_path / "pq" / "results"))
    assert cells(reader(tmp_path / "runs").polars("results").to_arrow()) == cells(whole)
    same_frames(reader(tmp_path / "pq"), reader(tmp_path / "runs"))


def test_dask_keeps_nan_and_missing_apart(tmp_path: Path) -> None:
    pytest.importorskip("dask.dataframe")
    log(tmp_path, "a", "results", {"x": math.nan, "o": 0.5}, x=float, o=cox.OBJECT)
    log(tmp_path, "b", "results", {"y": 1, "o": None}, y=int, o=cox.OBJECT)
    found = reader(tmp_path).dask("results", 1).compute()
    x = found["x"].array
    assert (bool(np.isnan(x[0])), x[1] is pd.NA) == (True, True)
    assert found["o"].tolist()[0] == 0.5
    assert found["o"].isna().tolist() == [False, True]


CELLS = {
    "int": st.integers(-3, 3) | st.just(2**60 + 1),
    "float": st.sampled_from([0.5, -0.0, math.nan, 1e-05, 1e300]),
    "bool": st.booleans(),
    "str": st.sampled_from(["", "auto", "1", "é\0"]),
    "object": st.sampled_from(
        [None, 1, 2.5, True, "a", [1], [0.5], [], {"a": 1}, {"a": "b"}, {}, (1, "x"), 2**70]
    ),
}
TYPES = {"int": int, "float": float, "bool": bool, "str": str, "object": cox.OBJECT}


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    """For some runs the kinds of their columns, and rows."""
    made = []
    for _ in range(draw(st.integers(2, 4))):
        kinds = draw(st.dictionaries(st.sampled_from("xyz"), st.sampled_from(sorted(TYPES)), min_size=1))
        rows = draw(st.lists(st.fixed_dictionaries({n: CELLS[k] for n, k in kinds.items()}), max_size=3))
        made.append((kinds, rows))
    return made


@given(runs=runs(), data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_runs_in_any_steps_are_as_if_exported_at_once(
    tmp_path_factory: pytest.TempPathFactory, runs: Any, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("steps")
    whole, now, dest = base / "whole", base / "now", base / "pq"
    now.mkdir()
    for i, (kinds, rows) in enumerate(runs):
        row_of = [{"step": step, **row} for step, row in enumerate(rows)]
        log(
            whole,
            f"run{i}",
            "results",
            *row_of,
            step=int,
            **{name: TYPES[kind] for name, kind in kinds.items()},
        )
        log(whole, f"run{i}", "metadata", {"i": i}, i=int)
    for i in data.draw(st.permutations(range(len(runs)))):
        shutil.copytree(whole / f"run{i}", now / f"run{i}")
        if data.draw(st.booleans()):
            reader(now).to_parquet(dest)
            gone = data.draw(st.booleans())
            if gone:
                shutil.rmtree(now)
                now.mkdir()
    reader(now).to_parquet(dest)
    assert reader(now).to_parquet(dest) == dict.fromkeys(reader(now).schemas, 0)
    reader(whole).to_parquet(base / "once")
    for table in reader(whole).schemas:
        assert stored(dest, table) == stored(base / "once", table) == cells(reader(whole).arrow(table))
    assert stored(dest, "params") == stored(base / "once", "params")
    same_frames(reader(dest), reader(whole))


# --- It can be read back


@pytest.fixture
def sweep(out: Path) -> Path:
    for seed in range(3):
        for rank in (1, 0):
            with cox.Store(out, f"run{seed}", rank=rank) as store:
                row = {"lr": 0.1, "seed": seed, "layers": [64, 64], "dropout": None if seed else 0.5}
                store.add_table_like_example("metadata", row).append_row(row)
                table = store.add_table("results", {"step": int, "loss": float | None, "o": cox.OBJECT})
                for step in range(3):
                    loss = [None, math.nan, 10.0 * rank + seed][step]
                    table.append_row({"step": step, "loss": loss, "o": {"a": [step]}})
                store.add_table("empty", {"x": int}).append_row({"x": 1})
                store["empty"].rewind(0)
    return out


def test_a_dataset_gives_the_same_frames(sweep: Path, tmp_path: Path) -> None:
    dest = tmp_path / "pq"
    before = reader(sweep)
    before.to_parquet(dest)
    back = reader(dest)
    same_frames(back, before)
    how: dict[str, Any]
    for how in (
        {"where": "step > 0 and loss >= 0"},
        {"columns": ["loss", "o"]},
        {"params": "seed > 1"},
        {"exp_filter": "run1".__eq__, "append_exp_id": False},
    ):
        pd.testing.assert_frame_equal(back.df("results", **how), before.df("results", **how))
    pd.testing.assert_frame_equal(back.wide(), before.wide())
    pd.testing.assert_frame_equal(back.runs(), before.runs())
    for one in ("compare", "diff"):
        arguments = ("results", "loss", "lr", ["seed", "dropout"]) if one == "compare" else ("run0", "run2")
        pd.testing.assert_frame_equal(getattr(back, one)(*arguments), getattr(before, one)(*arguments))
    assert cells(back.arrow("results")) == cells(before.arrow("results"))
    query = "select lr, layers, count(*) as n from results join params using (exp_id) group by lr, layers"
    assert back.sql(query)["n"].tolist() == before.sql(query)["n"].tolist() == [18]
    with pytest.raises(ReadOnlyError, match="has rows and no stores"):
        _ = back.stores
    with pytest.raises(ExportError, match="already"):
        back.to_parquet(tmp_path / "again")


def test_export_then_delete_loses_nothing(sweep: Path, tmp_path: Path) -> None:
    dest = tmp_path / "pq"
    before = CollectionReader(sweep)
    frame, params = before.df("results"), before.params()
    before.to_parquet(dest)
    shutil.rmtree(sweep)
    sweep.mkdir()
    CollectionReader(sweep).to_parquet(dest)
    back = CollectionReader(dest)
    pd.testing.assert_frame_equal(back.df("results"), frame)
    pd.testing.assert_frame_equal(back.params(), params)
    assert pq.read_table(dest / "params").num_rows == 3


def test_own_objects_in_a_dataset_are_still_vouched_for(out: Path, tmp_path: Path) -> None:
    log(out, "run", "results", {"o": lambda: 42}, o=cox.OBJECT)
    with pytest.warns(CollectionWarning, match="not exported"):
        CollectionReader(out).to_parquet(tmp_path / "pq")
    shutil.rmtree(out)
    assert CollectionReader(tmp_path / "pq").df("results")["o"][0]() == 42


def test_what_cannot_leave_is_said_once(out: Path, tmp_path: Path) -> None:
    for seed in range(3):
        log(out, f"run{seed}", "results", {"p": [seed], "o": lambda: 1}, p=cox.PICKLE, o=cox.OBJECT)
    with pytest.warns(CollectionWarning, match=r"'o' \(3\).*'p' \(3\)|'p' \(3\).*'o' \(3\)") as told:
        CollectionReader(out).to_parquet(tmp_path / "pq")
    assert len(told) == 1
    texts = [row["o"][1] for row in stored(tmp_path / "pq")]
    assert all(text.startswith("<") and text.endswith("not rebuilt>") for text in texts)


def test_a_damaged_dataset_says_which_file(sweep: Path, tmp_path: Path) -> None:
    dest = tmp_path / "pq"
    CollectionReader(sweep).to_parquet(dest)
    part = next((dest / "results").glob("*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 4] ^= 0xFF
    part.unlink()
    part.write_bytes(data)
    with pytest.raises(DamagedError, match=part.name):
        CollectionReader(dest).df("results")
    part.unlink()
    with pytest.raises(DamagedError, match=part.name):
        CollectionReader(dest).df("results")
    assert len(CollectionReader(dest).params()) == 3


# --- Names, neighbours, and the version before


@pytest.mark.parametrize("name", ["../../esc", "/abs", "..", "", ".hidden", "_cox", "a/b", "a%2Fb"])
def test_the_files_of_a_table_lie_in_the_dataset(tmp_path: Path, name: str) -> None:
    directory = directory_of(tmp_path, name)
    assert directory.parent == tmp_path
    assert directory.name == "" or directory.name[0] not in "._"


def test_what_somebody_put_beside_the_parts_stays(sweep: Path, tmp_path: Path) -> None:
    CollectionReader(sweep).to_parquet(tmp_path)
    (tmp_path / "results" / "notes.txt").write_text("mine")
    (tmp_path / "results" / "figures").mkdir()
    log(sweep, "more", "results", {"step": 9}, step=int)
    reader(sweep).to_parquet(tmp_path)
    assert (tmp_path / "results" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "results" / "figures").is_dir()


def test_a_file_system_that_cannot_exchange_directories(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cox.storage.fs._exchange_at_once", lambda one, other: False)
    for step in range(2):
        log(sweep, f"more{step}", "results", {"step": 9}, step=int)
        reader(sweep).to_parquet(tmp_path / "pq")
    assert stored(tmp_path / "pq") == cells(reader(sweep).arrow("results"))


def as_before(dest: Path, table: str, rows: dict[str, list[Any]], states: dict[str, Any]) -> None:
    """What the version before wrote."""
    import pyarrow as pa

    made = pa.table(rows)
    (dest / table).mkdir(parents=True)
    file = f"part-{'0' * 32}.parquet"
    pq.write_table(made, dest / table / file)
    columns = [[field.name, str(field.type)] for field in made.schema]
    content = {"version": 1, "columns": columns, "parts": {file: states}}
    (dest / table / "_cox.json").write_text(json.dumps(content))


def test_a_dataset_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    """A run that is gone stays, one that went on is not doubled, another of its name stands beside it."""
    out, dest = tmp_path / "runs", tmp_path / "pq"
    log(out, "goes_on", "results", {"step": 0, "x": 1.0}, {"step": 1, "x": 2.0}, step=int, x=float)
    log(out, "other", "results", {"step": 0, "x": 5.0}, step=int, x=float)
    rows = {
        "step": [0, 0, 0],
        "x": [7.0, 1.0, 4.0],
        "exp_id": ["gone", "goes_on", "other"],
    }
    as_before(dest, "results", rows, {name: [1, 2, 3, 4, 5, []] for name in rows["exp_id"]})
    assert reader(out).to_parquet(dest)["results"] == 2
    found = pq.read_table(dest / "results").to_pylist()
    assert sorted((row["exp_id"], row["step"], row["x"]) for row in found) == [
        ("goes_on", 0, 1.0),
        ("goes_on", 1, 2.0),
        ("gone", 0, 7.0),
        ("other", 0, 4.0),
        ("runs/other", 0, 5.0),
    ]
    assert not (dest / "results" / "_cox.json").exists()
    assert reader(out).to_parquet(dest)["results"] == 0
    assert sorted(set(reader(dest).df("results")["exp_id"])) == [*("goes_on", "gone", "other", "runs/other")]


def test_parts_are_grouped_and_only_what_changed_is_written(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "RUNS_IN_PART", 2)
    for i in range(5):
        log(out, f"run{i}", "results", {"step": i}, step=int)
    reader(out).to_parquet(tmp_path)
    before = {path.name for path in (tmp_path / "results").iterdir()}
    assert len(before) == 3
    log(out, "run0", "results", {"step": 9}, step=int)
    assert reader(out).to_parquet(tmp_path) == {"results": 1}
    assert len(before & {path.name for path in (tmp_path / "results").iterdir()}) == 2
    assert stored(tmp_path) == cells(reader(out).arrow("results"))
