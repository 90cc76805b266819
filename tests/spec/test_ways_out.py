"""Out of a collection: to other engines, to a comparison, a picture, a notebook."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cox
from cox.errors import (
    CollectionWarning,
    ColumnNotFoundError,
    CompareError,
    DamagedError,
    ExportError,
    MissingExtraError,
    PredicateError,
    RunNotFoundError,
    TableNotFoundError,
)
from cox.exports import parquet
from cox.exports.engines import needed
from cox.readers import CollectionReader
from cox.storage import claims, fs
from tests.conftest import PATIENCE

SCHEMA = {"step": int, "loss": float, "note": str | None, "o": cox.OBJECT}


def log(folder: Path, name: str, lr: float, seed: int, rows: int = 5, **extra: Any) -> None:
    with cox.Store(folder, name) as store:
        if "metadata" not in store:
            metadata = store.add_table("metadata", {"lr": float, "seed": int, "arch": str})
            metadata.append_row({"lr": lr, "seed": seed, "arch": "resnet18"})
        schema = SCHEMA | {column: type(value) for column, value in extra.items()}
        table = store.add_table("results", schema)
        for step in range(table.nrows, table.nrows + rows):
            row = {"step": step, "loss": lr * seed + 1 / (step + 1), "o": [step], **extra}
            table.append_row(row | ({"note": f"<é{step}>"} if step % 2 else {}))


@pytest.fixture
def runs(out: Path) -> Path:
    for lr in (0.1, 1.0):
        for seed in range(3):
            log(out, f"lr{lr:g}-s{seed}", lr, seed)
    return out


@pytest.fixture
def reader(runs: Path) -> Iterator[CollectionReader]:
    with CollectionReader(runs) as made:
        yield made


def test_arrow_and_polars_hold_the_rows_of_the_frame(reader: CollectionReader) -> None:
    frame = reader.df("results")
    arrow = reader.arrow("results")
    assert arrow.column_names == [*SCHEMA, "exp_id"]
    assert arrow.to_pydict() == {
        name: [None if cell is pd.NA or cell != cell else cell for cell in frame[name].tolist()]
        for name in frame
    }
    polars = reader.polars("results", columns=["loss", "step"], where="step == 2", params={"lr": 1.0})
    assert polars.columns == ["loss", "step", "exp_id"]
    assert polars["exp_id"].to_list() == ["lr1-s0", "lr1-s1", "lr1-s2"]
    assert polars["step"].to_list() == [2, 2, 2]


@pytest.mark.filterwarnings("ignore:Creating scratch directories is taking a surprisingly long time")
def test_dask_reads_in_its_workers(reader: CollectionReader) -> None:
    import dask
    from dask.distributed import Client, LocalCluster

    lazy = reader.dask("results", runs_per_partition=2, columns=["step", "loss"])
    assert (lazy.npartitions, list(lazy.columns)) == (3, ["step", "loss", "exp_id"])
    patient = {f"distributed.comm.timeouts.{what}": PATIENCE for what in ("connect", "tcp")}
    with (
        dask.config.set(patient),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True) as cluster,
        Client(cluster, timeout=PATIENCE) as client,
    ):
        computed = client.compute(lazy).result()
    expected = reader.df("results", columns=["step", "loss"])
    assert computed["loss"].tolist() == expected["loss"].tolist()
    assert computed["exp_id"].astype(str).tolist() == expected["exp_id"].tolist()


def test_dask_of_runs_that_lack_the_table_or_a_column(runs: Path) -> None:
    log(runs, "more", 1.0, 0, extra=7)
    with cox.Store(runs, "a-without") as store:
        store.add_table("other", {"x": int}).append_row({"x": 1})
    with CollectionReader(runs, log_warnings=False) as reader:
        computed = reader.dask("results", runs_per_partition=1).compute()
        assert len(computed) == len(reader.df("results")) == 35
        assert computed["extra"].isna().sum() == 30


def test_sql_joins_tables_over_runs(reader: CollectionReader) -> None:
    found = reader.sql(
        "select lr, count(*) as n, min(loss) as best from results join metadata using (exp_id) "
        "group by lr order by lr"
    )
    assert found["lr"].tolist() == [0.1, 1.0]
    assert found["n"].tolist() == [15, 15]
    assert found["best"].tolist() == [0.2, 0.2]
    states = reader.sql("select state, count(*) as n from runs group by state")
    assert states.to_dict("records") == [{"state": "finished", "n": 6}]
    assert reader.sql('select max("seed") as seed from PARAMS')["seed"].tolist() == [2]


@pytest.mark.parametrize(
    ("query", "error", "told"),
    [
        (
            "select * from resluts",
            TableNotFoundError,
            r"resluts.*\['metadata', 'params', 'results', 'runs'\]",
        ),
        ("select los from results", PredicateError, "los.*\n*.*loss"),
        ("select from", PredicateError, r"\^"),
        ("", PredicateError, "no|empty|nothing"),
    ],
    ids=["table", "column", "syntax", "empty"],
)
def test_sql_that_makes_no_sense_says_where(
    reader: CollectionReader, query: str, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=f"(?s){told}"):
        reader.sql(query)


def test_options_are_those_of_the_method(reader: CollectionReader) -> None:
    for method in (reader.arrow, reader.polars, reader.dask):
        with pytest.raises(TypeError, match=rf"{method.__name__}\(\).*'colums'"):
            method("results", colums=["loss"])


def test_dask_knows_the_columns_of_all_runs(runs: Path) -> None:
    log(runs, "more", 1.0, 0, other=3)
    with CollectionReader(runs, log_warnings=False) as reader:
        found = reader.dask("results", 1, columns=["other"]).compute()
        assert found["other"].isna().sum() == 30
        assert found["other"].dropna().tolist() == [3] * 5
        for columns in (None, ["step"], ["other", "step"]):
            rows = reader.dask("results", 1, columns=columns, where="other == 3").compute()
            assert rows["step"].tolist() == [0, 1, 2, 3, 4]
        assert len(reader.dask("results", 1, where="other is None or exp_id == 'more'").compute()) == 35
        with pytest.raises(ColumnNotFoundError, match="'othr'.*'other'"):
            reader.dask("results", 1, columns=["othr"])
        with pytest.raises(ColumnNotFoundError, match="'othr'.*'other'"):
            reader.dask("results", 1, where="othr == 3")


def test_sql_refuses_names_that_differ_in_case_only(runs: Path) -> None:
    with cox.Store(runs, "zz") as store:
        store.add_table("Results", {"x": int}).append_row({"x": 1})
        store.add_table("mixed", {"Loss": float, "loss": float}).append_row({"Loss": 1.0, "loss": 2.0})
    with CollectionReader(runs, log_warnings=False) as reader:
        with pytest.raises(PredicateError, match=r"tables .*\['Results', 'results'\]"):
            reader.sql("select * from results")
        with pytest.raises(PredicateError, match=r"columns of table 'mixed'.*\['Loss', 'loss'\]"):
            reader.sql("select * from mixed")
        assert len(reader.sql("select * from metadata")) == 6


def test_sql_sees_tables_and_nothing_else(reader: CollectionReader) -> None:
    for name in ("tables", "frame", "pd"):
        with pytest.raises(TableNotFoundError, match=name):
            reader.sql(f"select * from {name}")
    assert reader.sql("show tables")["name"].tolist() == ["metadata", "params", "results", "runs"]
    listed = reader.sql("select column_name from information_schema.columns where data_type = 'DOUBLE'")
    assert sorted(listed["column_name"]) == ["loss", "lr", "lr", "lr"]
    assert reader.sql("describe results")["column_name"].tolist() == [*SCHEMA, "exp_id"]
    with pytest.raises(PredicateError, match="empty"):
        reader.sql("-- hi")


@pytest.mark.parametrize("name", ["runs", "Params"])
def test_a_table_of_ones_own_takes_the_place_of_runs(out: Path, name: str) -> None:
    with cox.Store(out, "run") as store:
        store.add_table(name, {"x": int}).append_row({"x": 7})
    with CollectionReader(out) as reader:
        assert reader.sql(f"select x from {name.lower()}")["x"].tolist() == [7]


def test_sql_of_parameters_with_any_name_and_of_any_kind(out: Path) -> None:
    schema = {"state": str, "host": int, "exp_id": int, "started": float, "duration": float, "o": cox.OBJECT}
    for at, value in enumerate(([1, "a"], "text", {}, 2**70)):
        row = {"state": "CA", "host": 3, "exp_id": at, "started": 0.5, "duration": 2.0, "o": value}
        with cox.Store(out, f"run{at}") as store:
            store.add_table("metadata", schema).append_row(row)
    with CollectionReader(out, log_warnings=False) as reader:
        runs = reader.sql('select state, "params.state", "params.host", exp_id, "params.exp_id" from runs')
        assert runs.iloc[1].tolist() == ["finished", "CA", 3, "run1", 1]
        params = reader.sql('select exp_id, "params.exp_id", state, o from params order by exp_id')
        assert params["exp_id"].tolist() == ["run0", "run1", "run2", "run3"]
        assert params["params.exp_id"].tolist() == [0, 1, 2, 3]
        assert params["o"].tolist() == ['[1, "a"]', "text", "{}", str(2**70)]


# --- Parquet


def exported(dest: Path, table: str = "results") -> pd.DataFrame:
    import pyarrow.dataset

    frame: pd.DataFrame = pyarrow.dataset.dataset(dest / table).to_table().to_pandas()
    if table == "params":
        return frame
    if "o" in frame:
        frame["o"] = frame["o"].map(list)
    return frame.sort_values(["exp_id", "step"]).reset_index(drop=True)


def expected(runs: Path) -> pd.DataFrame:
    with CollectionReader(runs, log_warnings=False) as reader:
        frame = reader.df("results")
    return frame.sort_values(["exp_id", "step"]).reset_index(drop=True)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


def test_to_parquet_adds_only_what_is_new(runs: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    assert CollectionReader(runs).to_parquet(dest) == {"metadata": 6, "results": 6}
    same(exported(dest), expected(runs))
    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*.parquet")}
    assert CollectionReader(runs).to_parquet(dest) == {"metadata": 0, "results": 0}
    log(runs, "new", 0.5, 9)
    assert CollectionReader(runs).to_parquet(dest) == {"metadata": 1, "results": 1}
    assert before.items() <= {path: path.stat().st_mtime_ns for path in dest.rglob("*.parquet")}.items()
    log(runs, "lr1-s1", 1.0, 1)  # goes on
    assert CollectionReader(runs).to_parquet(dest, tables="results") == {"results": 1}
    same(exported(dest), expected(runs))


def test_to_parquet_of_a_column_more_and_of_runs_that_are_gone(runs: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    CollectionReader(runs).to_parquet(dest)
    (runs / "lr1-s2").rename(tmp_path / "elsewhere")
    log(runs, "new", 0.5, 9, extra=7)
    assert CollectionReader(runs, log_warnings=False).to_parquet(dest)["results"] == 1
    found = exported(dest)
    assert found["exp_id"].nunique() == 7
    assert found["extra"].dropna().tolist() == [7] * 5


def test_to_parquet_of_some_runs_and_unknown_tables(reader: CollectionReader, tmp_path: Path) -> None:
    assert reader.to_parquet(tmp_path, tables=["results"], params="lr < 1 and seed > 0") == {"results": 2}
    assert set(exported(tmp_path)["exp_id"]) == {"lr0.1-s1", "lr0.1-s2"}
    with pytest.raises(TableNotFoundError, match="'reslts'.*'results'"):
        reader.to_parquet(tmp_path, tables=["reslts"])


def test_to_parquet_leaves_files_of_others_alone(reader: CollectionReader, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("x")
    with pytest.raises(ExportError, match="no export made"):
        reader.to_parquet(tmp_path)
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "_cox.json").write_text("{")
    with pytest.raises(ExportError, match="export anew"):
        reader.to_parquet(tmp_path, tables="metadata")
    (tmp_path / "_cox" / "dataset.json").write_text("{")
    with pytest.raises(DamagedError, match=r"dataset\.json"):
        reader.to_parquet(tmp_path / "other" / "..", tables="metadata")


def test_to_parquet_cut_off_at_any_step_goes_on(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step it stops at, a table is as it was or whole, and the next export makes all whole."""
    stopped = 0
    for at in range(40):
        dest = tmp_path / f"dest-{at}"
        CollectionReader(runs).to_parquet(dest)
        before = exported(dest)
        log(runs, f"new-{at}", 0.5, at)
        log(runs, "lr1-s1", 1.0, 1, rows=1)
        done = [0]
        with monkeypatch.context() as patch:
            for name in ("rename", "unlink", "exchange", "link", "replace_bytes"):
                patch.setattr(fs, name, _stopping(getattr(fs, name), at, done))
            try:
                CollectionReader(runs).to_parquet(dest)
            except KeyboardInterrupt:
                stopped += 1
            else:
                break
        seen = exported(dest)
        assert len(seen) in (len(before), len(expected(runs)))
        same(seen, before if len(seen) == len(before) else expected(runs))
        CollectionReader(runs).to_parquet(dest)
        same(exported(dest), expected(runs))
        assert not list((dest / "_cox" / "new").iterdir())
    assert stopped > 5


def _stopping(call: Callable[..., Any], at: int, done: list[int]) -> Callable[..., Any]:
    def stop(*args: Any, **options: Any) -> Any:
        if done[0] == at:
            raise KeyboardInterrupt
        done[0] += 1
        return call(*args, **options)

    return stop


def test_exports_to_the_same_place_wait_for_each_other(
    reader: CollectionReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "dest"
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(reader.to_parquet, dest, "results") for _ in range(4)]:
            done.result()
    assert len(exported(dest)) == 30
    monkeypatch.setattr(parquet, "PATIENCE", 0.1)
    with (
        claims.exclusive(dest / "_cox" / "lock"),
        pytest.raises(ExportError, match="another process exports"),
    ):
        reader.to_parquet(dest, "results")


def test_to_parquet_removes_what_is_left_over(runs: Path, tmp_path: Path) -> None:
    CollectionReader(runs).to_parquet(tmp_path)
    part = next((tmp_path / "results").glob("part-*"))
    part.with_name(f"part-{'0' * 32}.parquet").write_bytes(part.read_bytes())
    CollectionReader(runs).to_parquet(tmp_path)
    same(exported(tmp_path), expected(runs))


def test_to_parquet_of_a_run_begun_anew_under_an_old_name(runs: Path, tmp_path: Path) -> None:
    CollectionReader(runs).to_parquet(tmp_path)
    before = exported(tmp_path)
    shutil.rmtree(runs / "lr1-s1")
    with cox.Store(runs, "lr1-s1") as store:
        store.add_table("other", {"x": int}).append_row({"x": 1})
    found = CollectionReader(runs, log_warnings=False).to_parquet(tmp_path)
    assert found == {"metadata": 0, "results": 0, "other": 1}
    same(exported(tmp_path), before)
    [name] = exported(tmp_path, "params").set_index("exp_id").index.difference(before["exp_id"])
    assert name.startswith("lr1-s1~")


def test_to_parquet_of_a_run_that_lost_its_table(runs: Path, tmp_path: Path) -> None:
    CollectionReader(runs).to_parquet(tmp_path)
    with cox.Store(runs, "lr1-s1", mode="w") as store:
        store.add_table("other", {"x": int}).append_row({"x": 1})
    found = CollectionReader(runs, log_warnings=False).to_parquet(tmp_path)
    assert found == {"metadata": 0, "results": 0, "other": 1}
    same(exported(tmp_path), expected(runs))


@pytest.mark.parametrize("first", [True, False], ids=["at once", "later"])
def test_to_parquet_of_fewer_columns_in_another_order(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    monkeypatch.setattr(parquet, "RUNS_IN_PART", 1)
    dest = tmp_path / "dest"
    with cox.Store(out, "a") as store:
        store.add_table("results", {"step": int, "loss": float, "n": int}).append_row(
            {"step": 1, "loss": 2.0, "n": 5}
        )
    if not first:
        CollectionReader(out).to_parquet(dest)
    with cox.Store(out, "b") as store:
        store.add_table("results", {"n": int, "step": int}).append_row({"step": 3, "n": 4})
    CollectionReader(out, log_warnings=False).to_parquet(dest)
    same(exported(dest), expected(out))


@pytest.mark.parametrize(("old", "text"), [(True, "True"), (1.0, "1.0")], ids=["bool", "float"])
def test_to_parquet_of_a_column_whose_type_changed(out: Path, tmp_path: Path, old: Any, text: str) -> None:
    dest = tmp_path / "dest"
    for name in ("a", "b"):
        log(out, name, 1.0, 0, rows=1, x=old)
    CollectionReader(out).to_parquet(dest)
    log(out, "c", 1.0, 0, rows=1, x="new")
    (out / "b").rename(tmp_path / "elsewhere")
    assert CollectionReader(out, log_warnings=False).to_parquet(dest)["results"] == 1
    assert exported(dest).set_index("exp_id")["x"].to_dict() == {"a": text, "b": text, "c": "new"}
    (out / "c").rename(tmp_path / "elsewhere too")
    CollectionReader(out).to_parquet(dest)
    assert exported(dest).set_index("exp_id")["x"].to_dict() == {"a": text, "b": text, "c": "new"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [("pyarrow", "parquet"), ("polars", "polars"), ("duckdb", "sql"), ("dask.dataframe", "dask")],
    ids=["pyarrow", "polars", "duckdb", "dask"],
)
def test_a_missing_extra_is_named(module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'cox\[{extra}\]'"):
        needed(module, extra)


# --- Comparison


def test_compare_describes_groups_and_says_who_went_in(reader: CollectionReader) -> None:
    found = reader.compare("results", "loss", by="lr", over="seed", reduce="min")
    assert found["lr"].tolist() == [0.1, 1.0]
    assert found["n"].tolist() == [3, 3]
    np.testing.assert_allclose(found["mean"], [0.3, 1.2])
    np.testing.assert_allclose(found["std"], [0.1, 1.0])
    np.testing.assert_allclose(found["high"] - found["mean"], np.array([0.1, 1.0]) * 4.302653 / np.sqrt(3))
    assert found.runs()[1] == ("lr1-s0", "lr1-s1", "lr1-s2")


def test_compare_refuses_to_mix_unless_told_to(runs: Path) -> None:
    with CollectionReader(runs) as reader:
        with pytest.raises(CompareError, match=r"'lr': 0\.1, 1\.0.*over=.*mixed=True"):
            reader.compare("results", "loss", over="seed")
        assert reader.compare("results", "loss", over="seed", mixed=True)["n"].tolist() == [6]
        assert reader.compare("results", "loss", over="seed", params={"lr": 0.1})["n"].tolist() == [3]
        with pytest.raises(ColumnNotFoundError, match="'los'.*'loss'"):
            reader.compare("results", "los")
        with pytest.raises(ColumnNotFoundError, match="'sed'.*'seed'"):
            reader.compare("results", "loss", by="lr", over="sed")


def test_compare_leaves_out_runs_without_the_metric(runs: Path) -> None:
    with cox.Store(runs, "other") as store:
        store.add_table("metadata", {"lr": float, "seed": int, "arch": str}).append_row(
            {"lr": 0.1, "seed": 9, "arch": "resnet18"}
        )
        store.add_table("results", {"step": int}).append_row({"step": 1})
    with CollectionReader(runs, log_warnings=False) as reader:
        found = reader.compare("results", "loss", by="lr", over="seed")
    assert found["n"].tolist() == [3, 3]
    assert found.attrs["left_out"] == ["other"]


def test_diff_shows_what_differs(reader: CollectionReader) -> None:
    found = reader.diff("lr0.1-s0", "lr1-s1")
    assert found.columns.tolist() == ["section", "name", "lr0.1-s0", "lr1-s1", "change"]
    assert found["name"].tolist() == ["lr", "seed", "results.loss"]
    assert found["change"].tolist() == [pytest.approx(0.9), 1, pytest.approx(1.0)]
    with pytest.raises(RunNotFoundError, match="'lr1-s9'.*did you mean .*lr1-s"):
        reader.diff("lr0.1-s0", "lr1-s9")


def test_plot_draws_a_line_for_each_hue_and_saves_it(reader: CollectionReader, tmp_path: Path) -> None:
    axes = reader.plot("results", "step", "loss", hue="lr", over="seed", path=tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(axes.get_lines()) == 2
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata()[:2], [1.1, 0.6])
    with pytest.raises(ColumnNotFoundError, match="'los'.*'loss'"):
        reader.plot("results", "step", "los")


# --- A line for each run


def test_runs_params_and_wide(runs: Path) -> None:
    with cox.Store(runs, "zz-no-metadata") as store:
        store.add_table("results", {"step": int, "loss": float | None}).append_row({"step": 3})
    with CollectionReader(runs, log_warnings=False) as reader:
        found = reader.runs()
        assert found.columns.tolist() == [
            *("state", "started", "duration", "host", "lr", "seed", "arch"),
            *("results.step", "results.loss", "results.note"),
        ]
        assert found.index.tolist() == reader.exp_ids
        assert found.index.name == "exp_id"
        assert set(found["state"]) == {"finished"}
        assert found.loc["lr1-s2", "results.loss"] == pytest.approx(2.2)
        assert pd.isna(found.loc["zz-no-metadata", "results.loss"])
        assert str(found["started"].dt.tz) == "UTC"
        assert (found["duration"] >= pd.Timedelta(0)).all()
        assert reader.params().loc["lr1-s2"].to_dict() == {"lr": 1.0, "seed": 2, "arch": "resnet18"}
        wide = reader.wide()
        assert wide.loc["lr1-s1", ["results.loss.last", "results.loss.min", "results.loss.max"]].tolist() == [
            pytest.approx(1.2),
            pytest.approx(1.2),
            pytest.approx(2.0),
        ]
        assert reader.wide("results", reduce="max").columns.tolist() == [
            *("lr", "seed", "arch", "results.step.max", "results.loss.max")
        ]
        with pytest.raises(CompareError, match="'mode'.*'last', 'min', 'max'"):
            reader.wide(reduce="mode")
        with pytest.raises(TableNotFoundError, match="'reslts'.*'results'"):
            reader.wide("reslts")


def test_parameters_of_one_object_are_unfolded(out: Path) -> None:
    from cox.utils import Parameters

    args = Parameters({"lr": 0.1, "layers": [1, 2]})
    with cox.Store(out, "run") as store:
        store.add_table("metadata", cox.store.schema_from_dict(vars(args))).append_row(vars(args))
    with CollectionReader(out) as reader:
        assert reader.params().loc["run"].to_dict() == {"lr": 0.1, "layers": [1, 2]}
        assert len(reader.df("metadata", params={"lr": 0.1})) == 1


def test_in_a_notebook_everything_is_shown_and_escaped(runs: Path) -> None:
    with CollectionReader(runs) as reader:
        shown = reader._repr_html_()
        assert "6 runs in" in shown
        assert shown.count("finished") == 6
    with cox.Store(runs, "lr1-s0", mode="r") as store:
        assert "step: int, loss: float, note: str | None, o: OBJECT" in store._repr_html_()
        table = store["results"]._repr_html_()
        assert "5 rows" in table
        assert "&lt;é1&gt;" in table
        assert "<é1>" not in table


def test_many_runs_are_shown_without_opening_more_than_are_shown(runs: Path) -> None:
    for number in range(8):
        log(runs, f"lr1-x{number}", 1.0, 5)
    (runs / "lr1-x7" / "store.h5").write_bytes(b"broken")
    with CollectionReader(runs) as reader:
        with pytest.warns(CollectionWarning, match="run lr1-x7 is left out"):  # it is shown all the same
            shown = reader._repr_html_()
        assert "the newest 10; .runs() has all of them" in shown
        assert shown.count("finished") == 9


def test_the_environment_is_noted(out: Path) -> None:
    with cox.Store(out, "run") as store:
        info = json.loads(Path(store.path, ".cox", "run.json").read_text())
    assert info["python"].split(".")[0] == str(sys.version_info[0])
    assert info["command"] == sys.argv
    assert os.uname().machine in info["platform"]
