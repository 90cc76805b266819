"""Groups of runs against numbers computed by hand and by scipy; two runs and what they differ in."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cox.analysis import statistics
from cox.analysis.choices import REDUCTIONS
from cox.analysis.shown import STATISTICS
from cox.analysis.statistics import compare, diff
from cox.errors import ColumnNotFoundError, CompareError, MissingExtraError

ROOT = Path(__file__).resolve().parents[3]


def table(**runs: list[Any]) -> pd.DataFrame:
    """Rows of runs by name: the values of `acc`, in order of writing."""
    parts = [pd.DataFrame({"acc": values, "exp_id": name}) for name, values in runs.items()]
    return pd.concat(parts, ignore_index=True)


def params(**runs: Mapping[str, Any]) -> pd.DataFrame:
    names = list(dict.fromkeys(name for run in runs.values() for name in run))
    cells = {name: pd.Series([run.get(name) for run in runs.values()], dtype=object) for name in names}
    frame = pd.DataFrame(cells)
    frame.index = pd.Index(list(runs))
    return frame


@pytest.fixture
def rows() -> pd.DataFrame:
    return table(a0=[9.0, 1.0], a1=[9.0, 2.0], a2=[9.0, 6.0], b0=[5.0])


@pytest.fixture
def settings() -> pd.DataFrame:
    return params(
        a0={"lr": 0.1, "seed": 0},
        a1={"lr": 0.1, "seed": 1},
        a2={"lr": 0.1, "seed": 2},
        b0={"lr": 0.01, "seed": 0},
    )


# --- One group


def test_groups_are_described_as_by_hand(rows: pd.DataFrame, settings: pd.DataFrame) -> None:
    found = compare(rows, settings, metric="acc", by=["lr"], over="seed")
    assert list(found) == ["lr", "n", "n_nan", "mean", "std", "low", "high", "iqm", "min", "max"]
    assert found["lr"].tolist() == [0.01, 0.1]
    assert found["n"].tolist() == [1, 3] and found["n_nan"].tolist() == [0, 0]
    assert found.runs().tolist() == [("b0",), ("a0", "a1", "a2")]
    one, three = found.to_dict("records")
    assert (one["mean"], one["iqm"], one["min"], one["max"]) == (5, 5, 5, 5)
    assert all(math.isnan(one[name]) for name in ("std", "low", "high"))
    # 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, std sqrt(7); t(2, 0.975) = 4.302652729911275
    assert (three["mean"], three["min"], three["max"]) == (3, 1, 6)
    assert three["std"] == pytest.approx(math.sqrt(7), rel=1e-12)
    half = 4.302652729911275 * math.sqrt(7 / 3)
    assert (three["low"], three["high"]) == pytest.approx((3 - half, 3 + half), rel=1e-9)
    assert found.attrs == {
        "runs": [("b0",), ("a0", "a1", "a2")],
        "metric": "acc",
        "reduce": "last",
        "over": ["seed"],
        "level": 0.95,
        "interval": "t",
        "left_out": [],
        "nan": [],
        "repeated": [],
    }


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_student_is_that_of_scipy(level: float) -> None:
    values = [0.3, 0.9, 0.1, 0.7, 0.4]
    runs = {f"r{seed}": {"seed": seed} for seed in range(5)}
    rows = table(**{run: [value] for run, value in zip(runs, values, strict=True)})
    (row,) = compare(rows, params(**runs), metric="acc", over="seed", level=level).to_dict("records")
    wanted = stats.t.interval(level, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (row["low"], row["high"]) == pytest.approx(wanted, rel=1e-12)


def test_the_bootstrap_is_that_of_scipy_and_the_same_each_time() -> None:
    values = [0.3, 0.9, 0.1, 0.7, 0.4, 0.8]
    runs = {f"r{seed}": {"seed": seed} for seed in range(6)}
    rows = table(**{run: [value] for run, value in zip(runs, values, strict=True)})

    def interval(**options: Any) -> tuple[float, float]:
        found = compare(rows, params(**runs), metric="acc", over="seed", interval="bootstrap", **options)
        assert found["low"][0] < found["mean"][0] < found["high"][0]
        return found["low"][0], found["high"][0]

    wanted = stats.bootstrap((values,), np.mean, n_resamples=500, rng=np.random.default_rng(3))
    assert interval(resamples=500, seed=3) == pytest.approx(tuple(wanted.confidence_interval), rel=1e-12)
    assert interval() == interval()
    assert interval(resamples=500, seed=4) != interval(resamples=500, seed=3)


@pytest.mark.parametrize("interval", ["t", "bootstrap"])
def test_intervals_of_one_run_of_equal_runs_and_of_infinite_ones(interval: str) -> None:
    rows = table(a=[1.0], b=[0.1], c=[0.1], d=[0.1], e=[1.0], f=[math.inf])
    settings = params(
        **{run: {"x": x, "seed": seed} for seed, (run, x) in enumerate(zip("abcdef", "122233", strict=True))}
    )
    found = compare(rows, settings, metric="acc", by="x", over="seed", interval=interval)
    one, equal, infinite = found.to_dict("records")
    assert math.isnan(one["low"]) and math.isnan(one["high"]) and math.isnan(one["std"])
    assert [equal[name] for name in ("mean", "std", "low", "high", "iqm")] == [0.1, 0, 0.1, 0.1, 0.1]
    assert infinite["mean"] == math.inf and math.isnan(infinite["low"])


def test_a_bootstrap_without_acceleration_gives_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    real = stats.bootstrap

    def degenerate(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        found.confidence_interval = (math.nan, math.nan)
        return found

    monkeypatch.setattr(stats, "bootstrap", degenerate)
    settings = params(a={"seed": 0}, b={"seed": 1})
    found = compare(
        table(a=[1.0], b=[3.0]), settings, metric="acc", over="seed", interval="bootstrap", level=0.8
    )
    assert (found["low"][0], found["high"][0]) == (1, 3)


@pytest.mark.parametrize("n", range(1, 13))
def test_the_interquartile_mean_is_that_of_rliable(n: int) -> None:
    values = [float(value) ** 2 for value in random.Random(n).sample(range(100), n)]
    runs = {f"r{seed}": {"seed": seed} for seed in range(n)}
    rows = table(**{run: [value] for run, value in zip(runs, values, strict=True)})
    found = compare(rows, params(**runs), metric="acc", over="seed")
    assert found["iqm"][0] == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)


# --- One number for each run


@pytest.mark.parametrize(
    ("reduce", "wanted"),
    [
        ("last", 2),
        ("first", 4),
        ("max", 7),
        ("min", 1),
        ("mean", 3.5),
        ("median", 3),
        ("sum", 14),
        (lambda values: values.iloc[1] + len(values), 11),
    ],
)
def test_reductions_skip_what_is_missing(
    reduce: str | Callable[[pd.Series[Any]], float], wanted: float
) -> None:
    rows = pd.DataFrame(
        {"acc": pd.array([None, 4, 7, 1, None, 2, None], dtype="Float64"), "exp_id": ["r"] * 7}
    )
    found = compare(rows, params(r={}), metric="acc", reduce=reduce)
    assert found["mean"][0] == wanted
    assert found.attrs["left_out"] == [] and found.attrs["nan"] == []
    assert found.attrs["reduce"] == (reduce if isinstance(reduce, str) else "<lambda>")


@pytest.mark.parametrize(
    ("reduce", "mean", "n_nan"),
    [("last", 3, 1), ("first", 2.5, 0), ("mean", 3, 1), ("sum", 3, 1), ("median", 3, 1), ("max", 3, 0)],
)
@pytest.mark.parametrize("dtype", ["float64", "Float64", "object"])
def test_a_run_that_diverged_is_told(reduce: str, mean: float, n_nan: int, dtype: str) -> None:
    values: Any = np.array([2.0, 3.0, math.nan, 3.0])
    if dtype == "Float64":  # not None: NaN that somebody wrote
        values = pd.arrays.FloatingArray(values, np.zeros(4, dtype=bool))
    rows = pd.DataFrame({"exp_id": ["bad", "bad", "bad", "good"]})
    rows["acc"] = pd.Series(values, dtype=dtype)
    found = compare(rows, params(bad={"seed": 0}, good={"seed": 1}), metric="acc", over="seed", reduce=reduce)
    assert (found["mean"][0], found["n_nan"][0], found["n"][0]) == (mean, n_nan, 2 - n_nan)
    assert found.runs()[0] == (("good",) if n_nan else ("bad", "good"))
    assert found.attrs["nan"] == ["bad"] and found.attrs["left_out"] == []


def test_a_group_in_which_all_diverged_stays_in_the_table() -> None:
    settings = params(a={"lr": 1}, b={"lr": 2})
    found = compare(table(a=[math.nan], b=[1.0]), settings, metric="acc", by=["lr"], reduce="max")
    bad, good = found.to_dict("records")
    assert (bad["lr"], bad["n"], bad["n_nan"], found.runs()[0]) == (1, 0, 1, ())
    assert math.isnan(bad["mean"]) and math.isnan(bad["iqm"]) and math.isnan(bad["max"])
    assert (good["n"], good["mean"]) == (1, 1)


def test_runs_without_a_value_are_left_out_and_told() -> None:
    rows = pd.DataFrame({"acc": pd.array([1, None, None], dtype="Float64"), "exp_id": ["a", "a", "gone"]})
    found = compare(rows, params(a={"seed": 0}, norows={"seed": 1}), metric="acc", over="seed")
    assert found.runs().tolist() == [("a",)]
    assert found.attrs["left_out"] == ["gone", "norows"]
    with pytest.raises(CompareError, match="no run has a value of 'acc'"):
        compare(rows[1:], params(a={}), metric="acc")
    with pytest.raises(CompareError, match="no run has a value of 'acc'"):
        compare(rows[:0], params(a={}), metric="acc")


def test_rows_of_runs_that_were_written_at_once() -> None:
    rows = pd.DataFrame({"acc": range(1000), "exp_id": ["a", "b"] * 500})
    settings = params(a={"x": 0}, b={"x": 1})
    assert compare(rows, settings, metric="acc", by=["x"])["mean"].tolist() == [998, 999]
    assert compare(rows, settings, metric="acc", by=["x"], reduce="first")["mean"].tolist() == [0, 1]


@pytest.mark.parametrize("values", [[True, False], pd.array([True, None], dtype="boolean"), [3, 2**70]])
def test_what_counts_as_a_number(values: Any) -> None:
    rows = pd.DataFrame({"acc": values, "exp_id": ["a", "a"]})
    found = compare(rows, params(a={}), metric="acc", reduce="sum")
    assert found["mean"][0] == float(sum(value for value in values if value is not pd.NA))


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["x"], "str"), ([[1]], "list"), ([1j], "complex128"), ([pd.Timestamp(0)], "datetime64")],
)
def test_a_metric_that_is_no_number_is_refused(values: list[Any], kind: str) -> None:
    rows = pd.DataFrame({"acc": values, "exp_id": "a"})
    with pytest.raises(CompareError, match=f"'acc' is no number: it holds {kind}"):
        compare(rows, params(a={}), metric="acc")


def test_a_function_that_gives_no_number_is_refused(rows: pd.DataFrame, settings: pd.DataFrame) -> None:
    give: Any = lambda values: "high"  # noqa: E731
    with pytest.raises(CompareError, match="no number for run a0, but 'high'"):
        compare(rows, settings, metric="acc", mixed=True, reduce=give)


# --- Which runs


def test_runs_that_differ_otherwise_are_not_averaged(rows: pd.DataFrame, settings: pd.DataFrame) -> None:
    with pytest.raises(CompareError) as caught:
        compare(rows, settings, metric="acc", by=["lr"])
    message = str(caught.value)
    for told in ("'seed': 0, 1, 2", "lr=0.1", "1 of 2 groups", "by=…", "over=…", "mixed=True"):
        assert told in message
    found = compare(rows, settings, metric="acc", by=["lr"], mixed=True)
    assert found["n"].tolist() == [1, 3] and found.attrs["repeated"] == []
    with pytest.raises(
        CompareError, match=r"'lr': 0.01, 0.1; 'seed': 0, 1, 2 .* of all runs \(1 of 1 groups"
    ):
        compare(rows, settings, metric="acc")


def test_many_values_of_what_differs_are_not_all_told() -> None:
    runs = {f"r{seed}": {"seed": seed} for seed in range(9)}
    with pytest.raises(CompareError, match=r"'seed': 0, 1, 2, 3, … \(9 values\) would"):
        compare(table(**{run: [1.0] for run in runs}), params(**runs), metric="acc")


def test_only_runs_with_a_value_can_differ() -> None:
    settings = params(a={"lr": 1}, b={"lr": 2})
    assert compare(table(a=[1.0]), settings, metric="acc").runs().tolist() == [("a",)]


def test_a_run_that_lacks_a_parameter_differs_from_one_that_has_it() -> None:
    rows = table(a=[1.0], b=[2.0], c=[3.0])
    settings = params(a={"lr": 1, "new": True}, b={"lr": 1})
    with pytest.raises(CompareError, match="'lr': 1, None; 'new': True, None"):
        compare(rows, settings, metric="acc")
    settings = params(a={"new": 1.0}, b={"new": math.nan}, c={"new": None})
    assert compare(rows, settings, metric="acc", by=["new"])["n"].tolist() == [1, 2]


def test_a_repeated_seed_is_told(rows: pd.DataFrame, settings: pd.DataFrame) -> None:
    settings.loc["a2", "seed"] = 0
    found = compare(rows, settings, metric="acc", by=["lr"], over="seed")
    assert found.attrs["repeated"] == [("a0", "a2")]
    assert found["n"].tolist() == [1, 3]


def test_values_of_all_types_are_grouped_and_sorted() -> None:
    values = [
        "b",
        2,
        None,
        [1, {"k": [2]}],
        1.5,
        "a",
        True,
        (1, {"k": [2]}),
        {"x": 1, "y": 2},
        {"y": 2, "x": 1},
    ]
    runs = {f"r{at}": {"v": value} for at, value in enumerate(values)}
    found = compare(table(**{run: [1.0] for run in runs}), params(**runs), metric="acc", by="v")
    assert found["v"].tolist() == [True, 1.5, 2, "a", "b", [1, {"k": [2]}], {"x": 1, "y": 2}, None]
    assert found["n"].tolist() == [1, 1, 1, 1, 1, 2, 2, 1]


def test_true_is_not_one_and_one_is_one() -> None:
    settings = params(a={"v": True}, b={"v": 1}, c={"v": 1.0}, d={"v": "1"})
    found = compare(table(a=[1.0], b=[1.0], c=[1.0], d=[1.0]), settings, metric="acc", by="v")
    assert sorted(found.runs()) == [("a",), ("b", "c"), ("d",)]


def test_a_parameter_that_is_called_like_a_statistic() -> None:
    settings = params(a={"n": 7}, b={"n": 8})
    found = compare(table(a=[1.0], b=[1.0]), settings, metric="acc", by=["n"])
    assert found["n (parameter)"].tolist() == [7, 8] and found["n"].tolist() == [1, 1]


def test_names_of_runs_are_no_parameter() -> None:
    settings = params(a={"exp_id": "a"}, b={"exp_id": "b"})
    assert compare(table(a=[1.0], b=[1.0]), settings, metric="acc")["n"].tolist() == [2]


# --- Refusals


def test_unknown_names_are_told_with_those_there_are(rows: pd.DataFrame, settings: pd.DataFrame) -> None:
    with pytest.raises(ColumnNotFoundError, match=r"'sede'.*\['lr', 'seed'\]; did you mean 'seed'\?"):
        compare(rows, settings, metric="acc", by=["lr"], over="sede")
    with pytest.raises(ColumnNotFoundError, match=r"'L'; there are \['lr', 'seed'\]"):
        compare(rows, settings, metric="acc", by=["L"])
    with pytest.raises(ColumnNotFoundError, match=r"'ac'; there are \['acc'\]; did you mean 'acc'\?"):
        compare(rows, settings, metric="ac")
    with pytest.raises(ColumnNotFoundError, match="'exp_id'"):
        compare(rows, settings, metric="exp_id")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"reduce": "best"}, "'best'.*'median'"),
        ({"interval": "z"}, "'z'.*'bootstrap'"),
        ({"level": 95}, "level=95.*between 0 and 1"),
        ({"by": ["lr", "seed"], "over": ["seed"]}, "seed.*by=….*over=…"),
    ],
)
def test_arguments_without_sense_are_refused(
    rows: pd.DataFrame, settings: pd.DataFrame, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(CompareError, match=told):
        compare(rows, settings, metric="acc", **{"by": ["lr"], "over": ["seed"], **options})


@pytest.mark.parametrize("interval", ["t", "bootstrap"])
def test_without_scipy_the_extra_is_named(
    rows: pd.DataFrame, settings: pd.DataFrame, interval: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cox\[stats\]'"):
        compare(rows[:1], settings, metric="acc", interval=interval)


@pytest.mark.parametrize("module", ["statistics", "plotting"])
def test_importing_it_is_light(module: str) -> None:
    source = (
        f"import sys, cox.analysis.{module};"
        "print(sorted({'pandas', 'scipy', 'matplotlib', 'seaborn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- For any numbers

finite = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(finite, st.sampled_from("xyz")), min_size=1, max_size=12), st.randoms())
def test_invariants(runs: list[tuple[float, str]], shuffler: random.Random) -> None:
    names = [f"r{at}" for at in range(len(runs))]
    rows = pd.DataFrame({"acc": [value for value, _ in runs], "exp_id": names})
    settings = params(**{name: {"g": g, "seed": at} for at, (name, (_, g)) in enumerate(zip(names, runs))})  # noqa: B905
    found = compare(rows, settings, metric="acc", by="g", over="seed")
    assert found["n"].sum() == len(runs)
    assert sorted(run for group in found.runs() for run in group) == sorted(names)
    several = found[found["n"] > 1]
    assert (several["low"] <= several["mean"]).all() and (several["mean"] <= several["high"]).all()
    for name in ("iqm", "mean"):
        assert (found["min"] <= found[name]).all() and (found[name] <= found["max"]).all()
    shuffler.shuffle(names)
    again = compare(
        rows.set_index("exp_id").loc[names].reset_index(),
        settings.loc[sorted(names, reverse=True)],
        metric="acc",
        by="g",
        over="seed",
    )
    pd.testing.assert_frame_equal(found, again, check_exact=True)


@given(finite, st.integers(1, 40))
def test_constants_are_their_own_mean(value: float, n: int) -> None:
    runs = {f"r{seed}": {"seed": seed} for seed in range(n)}
    (row,) = compare(
        table(**{run: [value] for run in runs}), params(**runs), metric="acc", over="seed"
    ).to_dict("records")
    assert row["mean"] == row["iqm"] == row["min"] == row["max"] == value
    assert n == 1 or (row["std"], row["low"], row["high"]) == (0, value, value)


# --- diff


def test_two_runs_and_what_they_differ_in() -> None:
    first = {
        "results": {"acc": 0.5, "loss": math.nan},
        "parameters": {"lr": 0.1, "opt": "sgd", "layers": [1, 2], "old": 1},
        "environment": {"python": "3.11"},
    }
    second = {
        "parameters": {"lr": 0.3, "opt": "adam", "layers": (1, 2), "new": {"a": 1}},
        "results": {"acc": np.float32(0.75), "loss": math.nan},
        "notes": {"by": "me"},
    }
    found = diff(first, second, ("a", "b"))
    assert list(found) == ["section", "name", "a", "b", "change"]
    assert found.to_numpy().tolist() == [
        ["parameters", "lr", 0.1, 0.3, pytest.approx(0.2)],
        ["parameters", "opt", "sgd", "adam", ""],
        ["parameters", "old", 1, None, ""],
        ["parameters", "new", None, {"a": 1}, ""],
        ["environment", "python", "3.11", None, ""],
        ["results", "acc", 0.5, 0.75, 0.25],
        ["notes", "by", None, "me", ""],
    ]
    assert set(found.dtypes) == {np.dtype(object)}
    assert found.attrs == {"same": 2}


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (math.nan, np.nan, True),
        (math.nan, None, False),
        (None, pd.NA, True),
        (1, 1.0, True),
        (1, True, False),
        (1, "1", False),
        (np.int64(3), 3, True),
        ([1, [2, math.nan]], [1, [2, math.nan]], True),
        ({"a": [1], "b": 2}, {"b": 2, "a": [1]}, True),
        ({"a": [1]}, {"a": [2]}, False),
        (np.arange(5000), np.arange(5000), True),
        (np.arange(5000), np.where(np.arange(5000) == 2500, 0, np.arange(5000)), False),
        ({1, 2}, {2, 1}, True),
        (Path("a"), Path("a"), True),
        (Path("a"), Path("b"), False),
    ],
)
def test_values_are_compared_as_such(one: Any, two: Any, same: bool) -> None:
    found = diff({"parameters": {"v": one}}, {"parameters": {"v": two}}, ("a", "b"))
    assert found.attrs["same"] == same and len(found) == 1 - same


@pytest.mark.parametrize(
    ("one", "two", "change"),
    [
        (1, 3, 2),
        (2, np.float64(0.5), -1.5),
        (True, 2, ""),
        ("1", 2, ""),
        (10**400, 0.5, ""),
        (1.0, math.inf, math.inf),
    ],
)
def test_the_change_is_that_of_numbers(one: Any, two: Any, change: Any) -> None:
    assert diff({"results": {"v": one}}, {"results": {"v": two}}, ("a", "b"))["change"].tolist() == [change]


def test_equal_runs_give_an_empty_frame() -> None:
    run = {"parameters": {"a": 1}}
    found = diff(run, run, ("a", "b"))
    assert found.empty and list(found) == ["section", "name", "a", "b", "change"]
    assert found.attrs["same"] == 1


def test_the_statistics_are_told_in_the_docstring() -> None:
    for name in STATISTICS:
        assert f"`{name}`" in (compare.__doc__ or "")


def test_each_reduction_has_a_function() -> None:
    assert tuple(statistics._FUNCTIONS) == REDUCTIONS
