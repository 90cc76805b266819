"""What is drawn, point by point; and what is not drawn but refused."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats

from cox.analysis.plotting import plot, thinned
from cox.errors import ColumnNotFoundError, CompareError, MissingExtraError, StorageError

ROOT = Path(__file__).resolve().parents[3]


def table(**runs: tuple[Iterable[Any], Iterable[Any]]) -> pd.DataFrame:
    """Rows of runs by name: the values of `step` and of `loss`."""
    parts = [
        pd.DataFrame({"step": list(steps), "loss": list(losses), "exp_id": name})
        for name, (steps, losses) in runs.items()
    ]
    return pd.concat(parts, ignore_index=True)


def params(**runs: dict[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(list(runs.values()), dtype=object)
    frame.index = pd.Index(list(runs))
    return frame


def many(count: int, **values: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs of two rows, each with the parameters that functions of its number give."""
    rows = table(**{f"r{at:03d}": ([0, 1], [at, at + 1]) for at in range(count)})
    return rows, params(
        **{f"r{at:03d}": {name: make(at) for name, make in values.items()} for at in range(count)}
    )


def points(line: Any) -> list[list[float]]:
    return [np.asarray(values, dtype=float).tolist() for values in line.get_data()]


def band(ax: Any, at: int = 0) -> np.ndarray[Any, Any]:
    """The corners of a band, of shape (corners, 2)."""
    return np.concatenate([path.vertices for path in ax.collections[at].get_paths()])


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def save(ax: Any) -> bytes:
    """Draw it all; warnings are errors."""
    drawn = io.BytesIO()
    ax.figure.savefig(drawn, format="png")
    return drawn.getvalue()


@pytest.fixture
def seeds() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = table(
        a0=([0, 1, 2], [1, 2, 3]),
        a1=([0, 1, 2], [3, 4, 8]),
        a2=([0, 1, 2], [5, 9, 4]),
        b0=([0, 1, 2], [7, 7, 7]),
        b1=([0, 1, 2], [9, 7, 5]),
    )
    return rows, params(**{name: {"opt": name[0], "seed": int(name[1])} for name in rows["exp_id"].unique()})


# --- Lines of runs


def test_a_line_for_each_run_coloured_by_hue(seeds: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ax = plot(*seeds, x="step", y="loss", hue="opt", title="A title")
    assert [points(line) for line in ax.lines] == [
        [[0, 1, 2], [1, 2, 3]],
        [[0, 1, 2], [3, 4, 8]],
        [[0, 1, 2], [5, 9, 4]],
        [[0, 1, 2], [7, 7, 7]],
        [[0, 1, 2], [9, 7, 5]],
    ]
    colors = [mpl.colors.to_hex(line.get_color()) for line in ax.lines]
    assert colors == ["#0173b2"] * 3 + ["#de8f05"] * 2  # the first two of seaborn's colorblind
    assert legend(ax) == ["a", "b"] and ax.get_legend().get_title().get_text() == "opt"
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title("left")) == ("step", "loss", "A title")
    assert not ax.spines["top"].get_visible() and ax.spines["left"].get_visible()
    assert ax.figure.get_size_inches().tolist() == [6, 4]
    assert not ax.collections and save(ax)


def test_without_hue_there_is_no_legend(seeds: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ax = plot(*seeds, x="step", y="loss")
    assert ax.get_legend() is None and len({line.get_color() for line in ax.lines}) == 1


def test_rows_are_drawn_in_order_of_x_and_missing_ones_are_no_points() -> None:
    rows = table(r=([3, 1, 2, 4, 5], [30, 10, 0, 40, 50]))
    rows["loss"] = rows["loss"].astype("Float64")
    rows.loc[2, "loss"] = None
    rows["step"] = rows["step"].astype("Int64")
    rows.loc[4, "step"] = None
    (line,) = plot(rows, params(r={}), x="step", y="loss").lines
    assert points(line) == [[1, 3, 4], [10, 30, 40]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_a_gap(bad: float) -> None:
    rows = table(r=(range(6), [0, 1, bad, 3, bad, 5]))
    line, alone = plot(rows, params(r={}), x="step", y="loss").lines
    assert np.array_equal(line.get_ydata(), [0, 1, np.nan, 3, np.nan, 5], equal_nan=True)
    # a line through one point cannot be seen
    assert points(alone) == [[3, 5], [3, 5]] and alone.get_marker() == "."


def test_hue_may_be_a_column_of_the_rows() -> None:
    rows = table(r=([0, 0, 1, 1], [1, 2, 3, 4]), q=([0, 0], [5, 6]))
    rows["split"] = ["train", "val"] * 3
    ax = plot(rows, params(r={}, q={}), x="step", y="loss", hue="split")
    assert legend(ax) == ["train", "val"]
    # and the dots of lines with one point
    assert [points(line)[1] for line in ax.lines] == [[1, 3], [2, 4], [5], [5], [6], [6]]
    assert legend(plot(rows, params(r={}, q={}), x="step", y="loss", hue="exp_id")) == ["q", "r"]


@pytest.mark.parametrize("log", ["x", "y", "xy"])
def test_logarithmic_axes_have_no_place_for_zero(log: str) -> None:
    rows = table(r=([0, 1, 10, 100, 1000], [5, 4, 0, 2, 1]))
    ax = plot(rows, params(r={}), x="step", y="loss", log=log)
    assert (ax.get_xscale() == "log", ax.get_yscale() == "log") == ("x" in log, "y" in log)
    steps, losses = points(ax.lines[0])
    assert steps == ([1, 10, 100, 1000] if "x" in log else [0, 1, 10, 100, 1000])
    assert math.isnan(losses[steps.index(10)]) if "y" in log else losses[steps.index(10)] == 0
    assert save(ax)


# --- Means


def test_means_over_seeds_and_their_interval(seeds: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    ax = plot(*seeds, x="step", y="loss", hue="opt", over="seed", level=0.9)
    assert [points(line)[1] for line in ax.lines] == [[3, 5, 5], [8, 7, 6]]
    assert legend(ax) == ["a (n=3)", "b (n=2)"]
    for at, values in enumerate(([1, 3, 5], [7, 9])):
        low, high = stats.t.interval(0.9, len(values) - 1, np.mean(values), stats.sem(values))
        at_zero = {round(up, 9) for across, up in band(ax, at) if across == 0}
        assert at_zero == {round(low, 9), round(high, 9)}
    assert save(ax)


@pytest.mark.parametrize(
    ("kind", "ends"), [("sd", {3 - 2, 3 + 2}), ("minmax", {1, 5}), ("ci", {3 - 4.968275, 3 + 4.968275})]
)
def test_bands(kind: str, ends: set[float], seeds: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows, settings = seeds
    rows = rows[rows["exp_id"].str.startswith("a")]
    ax = plot(rows, settings, x="step", y="loss", over="seed", band=kind)
    assert {round(up, 6) for across, up in band(ax) if across == 0} == {round(end, 6) for end in ends}
    assert legend(ax) == ["mean (n=3)"]
    assert not plot(rows, settings, x="step", y="loss", over="seed", band=None).collections


def test_runs_with_steps_of_their_own_are_interpolated_but_not_beyond_their_ends() -> None:
    rows = table(a=([0, 2, 4], [0, 2, 4]), b=([1, 3, 5], [11, 31, 51]))
    ax = plot(rows, params(a={"seed": 0}, b={"seed": 1}), x="step", y="loss", over=["seed"], band="minmax")
    assert points(ax.lines[0]) == [[0, 1, 2, 3, 4, 5], [0, 6, 11.5, 17, 22.5, 51]]
    assert legend(ax) == ["mean (n=1–2)"]


def test_a_run_that_was_killed_counts_as_long_as_it_lived() -> None:
    rows = table(a=([0, 1, 2], [0, 0.1, 0.3]), b=([0, 1], [0.2, 0.2]))
    ax = plot(rows, params(a={"seed": 0}, b={"seed": 1}), x="step", y="loss", over="seed")
    assert points(ax.lines[0]) == [[0, 1, 2], [0.1, (0.1 + 0.2) / 2, 0.3]]
    assert band(ax)[:, 0].max() == 1  # of one run there is no interval
    assert save(ax)


def test_a_run_that_diverged_does_not_count_where_it_is_nan() -> None:
    rows = table(a=([0, 1, 2, 3], [0, math.nan, 2, 3]), b=([0, 1, 2, 3], [2, 2, 4, math.nan]))
    rows = pd.concat([rows, table(c=([0.5], [7]))])
    settings = params(a={"seed": 0}, b={"seed": 1}, c={"seed": 2})
    ax = plot(rows, settings, x="step", y="loss", over="seed", band=None)
    assert points(ax.lines[0]) == [[0, 0.5, 1, 2, 3], [1, 4.5, 2, 3, 3]]


def test_rows_of_a_run_at_the_same_x_count_once() -> None:
    rows = table(a=([0, 0, 1], [1, 3, 5]), b=([0, 1], [10, 10]))
    ax = plot(rows, params(a={"seed": 0}, b={"seed": 1}), x="step", y="loss", over="seed", band="minmax")
    assert points(ax.lines[0]) == [[0, 1], [6, 7.5]]


def test_long_lines_are_averaged_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    rows = table(**{f"r{at}": (np.arange(at, 100, 3), generator.random(34 - (at > 0))) for at in range(3)})
    settings = params(**{f"r{at}": {"seed": at} for at in range(3)})

    def drawn() -> list[list[float]]:
        return points(plot(rows, settings, x="step", y="loss", over="seed").lines[0])

    whole = drawn()
    monkeypatch.setattr("cox.analysis.plotting._BLOCK", 7)
    assert drawn() == whole and len(whole[0]) == 100


def test_runs_that_differ_otherwise_are_not_averaged(seeds: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows, settings = seeds
    settings["lr"] = [1, 2, 1, 1, 1]
    with pytest.raises(
        CompareError, match=r"'lr': 1, 2 .*opt='a' \(1 of 2 groups.*hue=….*over=….*mixed=True"
    ):
        plot(rows, settings, x="step", y="loss", hue="opt", over="seed")
    with pytest.raises(CompareError, match=r"'opt': 'a', 'b'; 'lr': 1, 2 .*of all runs"):
        plot(rows, settings, x="step", y="loss", over="seed")
    assert len(plot(rows, settings, x="step", y="loss", hue="opt", over=["seed", "lr"]).lines) == 2
    assert len(plot(rows, settings, x="step", y="loss", hue="opt", over="seed", mixed=True).lines) == 2
    assert len(plot(rows, settings, x="step", y="loss", hue="opt").lines) == 5  # nothing is averaged


# --- Thinning


def test_a_spike_among_a_million_points_survives() -> None:
    up = np.sin(np.arange(10**6) / 1e5)
    up[654_321], up[123_456] = 50, -50
    rows = pd.DataFrame({"step": np.arange(10**6), "loss": up, "exp_id": "r"})
    (line,) = plot(rows, params(r={}), x="step", y="loss").lines
    across, drawn = line.get_data()
    assert 1000 < len(across) <= 2000
    assert drawn[across == 654_321] == 50 and drawn[across == 123_456] == -50
    assert np.array_equal(drawn, up[np.asarray(across, dtype=int)])  # no value that was not there
    assert (across[0], across[-1]) == (0, 10**6 - 1)


def test_the_band_of_a_long_mean_keeps_its_spikes() -> None:
    up = np.zeros(10_000)
    up[7777] = 9
    steps = np.arange(10_000)
    rows = table(a=(steps, up), b=(steps, -up), c=(steps, np.zeros(10_000)))
    settings = params(a={"seed": 0}, b={"seed": 1}, c={"seed": 2})
    ax = plot(rows, settings, x="step", y="loss", over="seed", band="minmax", most_points=400)
    corners = band(ax)
    assert (corners[:, 1].min(), corners[:, 1].max()) == (-9, 9)
    assert len(ax.lines[0].get_xdata()) <= 1200


def test_columns_of_a_logarithmic_axis_are_equal_on_it() -> None:
    x = np.arange(1.0, 10_001)
    y = np.arange(10_000) % 7.0
    linear, logarithmic = thinned(x, y, 400), thinned(x, y, 400, log=True)
    assert (x[linear] < 100).sum() < 10 and 50 < (x[logarithmic] < 100).sum() <= 200


def test_gaps_stay_gaps() -> None:
    y = np.arange(100_000.0)
    y[30_000:50_000] = np.nan
    y[80_000] = np.nan
    kept = thinned(np.arange(100_000.0), y, 400)
    gaps = kept[np.isnan(y[kept])]
    assert {30_000, 49_999, 80_000} <= set(gaps.tolist())
    assert {29_999, 50_000} & set(kept.tolist()) and len(kept) <= 600


@given(
    st.lists(st.floats(-1e9, 1e9) | st.just(math.nan), min_size=1, max_size=400),
    st.integers(4, 100),
    st.booleans(),
    st.randoms(),
)
def test_thinned_lines_have_the_extremes_of_all_points(
    values: list[float], most: int, log: bool, generator: Any
) -> None:
    y = np.array(values)
    x = np.sort(np.array([generator.choice([1.0, 1.5, 2.0, 10 * generator.random() + 1]) for _ in values]))
    kept = thinned(x, y, most, log=log)
    assert (np.diff(kept) > 0).all() and kept[0] >= 0 and kept[-1] < len(y)
    assert len(kept) <= max(most, 0) + 2 * (most // 4) * np.isnan(y).any()
    if np.isnan(y).all():
        return
    assert (np.nanmin(y[kept]), np.nanmax(y[kept])) == (np.nanmin(y), np.nanmax(y))
    numbers, drawn = np.flatnonzero(~np.isnan(y)), kept[~np.isnan(y[kept])]
    assert (drawn[0], drawn[-1]) == (numbers[0], numbers[-1])


# --- Colours and legends


def test_many_numbers_are_colours_of_a_scale() -> None:
    ax = plot(*many(11, lr=lambda at: float(at) or None), x="step", y="loss", hue="lr")
    assert ax.get_legend() is not None and len(legend(ax)) == 11  # ten numbers, and one run without
    assert legend(ax)[-1] == "missing"
    ax = plot(*many(12, lr=lambda at: float(at) or None), x="step", y="loss", hue="lr")
    assert ax.get_legend() is None and ax.figure.axes[1].get_ylabel() == "lr"
    colors = [mpl.colors.to_hex(line.get_color()) for line in ax.lines]
    assert colors[0] == mpl.colors.to_hex("0.6")
    assert colors[1] == mpl.colors.to_hex(mpl.colormaps["viridis"](0.0))
    assert colors[-1] == mpl.colors.to_hex(mpl.colormaps["viridis"](1.0))
    assert ax.figure.axes[1].get_yscale() == "linear" and save(ax)


def test_numbers_of_many_magnitudes_are_spread_by_their_logarithm() -> None:
    ax = plot(*many(13, lr=lambda at: 10.0 ** (at / 3 - 5)), x="step", y="loss", hue="lr")
    assert ax.figure.axes[1].get_yscale() == "log"
    middle = mpl.colormaps["viridis"](0.5)
    assert np.allclose(ax.lines[6].get_color(), middle, atol=0.01)


@pytest.mark.parametrize("count", [12, 13, 30, 31])
def test_legends_of_many_names(count: int) -> None:
    ax = plot(*many(count, model=lambda at: f"model {at}"), x="step", y="loss", hue="model")
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    width = ax.figure.get_size_inches()[0]
    if count > 30:
        assert ax.get_legend() is None and ax.get_title("right") == "31 lines, 31 values of model"
        assert {style for _, style in looks} == {"-"}
    else:
        assert len(legend(ax)) == count == len(looks)
    assert (width > 6) == (12 < count <= 30)
    save(ax)
    inside = ax.get_window_extent().width / ax.figure.dpi
    assert 4.5 < inside < 6
    if width > 6:
        assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1 + 1


def test_names_are_shortened_in_the_middle_and_taken_literally() -> None:
    names = ["resnet-" + "x" * 50 + "-final", "_hidden", "costs $5 and $\\frac", "two\nlines", True, 1e-05]
    rows, settings = many(6, model=lambda at: names[at])
    rows["loss$_"] = rows["loss"]
    ax = plot(rows, settings, x="step", y="loss$_", hue="model")
    assert legend(ax)[:2] == ["1e-05", "True"]
    told = set(legend(ax))
    assert {" _hidden", r"costs \$5 and \$\frac", "two lines"} <= told
    (long,) = [text for text in told if text.startswith("resnet")]
    assert len(long) == 32 and "x…x" in long and long.endswith("-final")
    assert save(ax)


def test_hundreds_of_runs_are_drawn_without_a_slow_legend() -> None:
    steps = np.arange(200)
    rows = table(**{f"r{at}": (steps, steps + at) for at in range(120)})
    settings = params(**{f"r{at}": {"opt": "ab"[at % 2]} for at in range(120)})
    ax = plot(rows, settings, x="step", y="loss", hue="opt")
    assert len(ax.lines) == 120 and legend(ax) == ["a", "b"]
    assert ax.figure.get_size_inches()[0] > 6  # beside the axes: nowhere to look for
    assert save(ax)


# --- Where to


def test_an_axes_of_the_caller_is_drawn_on(seeds: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    figure = Figure(figsize=(9, 3))
    left, right = figure.subfigures(1, 2)
    given_axes = right.subplots()
    left.subplots()
    saved = tmp_path / "both.svg"
    assert plot(*seeds, x="step", y="loss", hue="opt", ax=given_axes, path=saved) is given_axes
    assert figure.get_size_inches().tolist() == [9, 3] and len(given_axes.lines) == 5
    many_names = many(13, model=str)
    plot(*many_names, x="step", y="loss", hue="model", ax=given_axes)
    assert figure.get_size_inches().tolist() == [9, 3] and len(legend(given_axes)) == 13
    assert "648pt" in saved.read_text()  # the whole figure: 9 inches


def test_no_figure_of_pyplot_is_left_behind(seeds: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    from matplotlib import pyplot as plt

    plot(*seeds, x="step", y="loss")
    assert plt.get_fignums() == []


def test_a_notebook_shows_the_figure(
    seeds: tuple[pd.DataFrame, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    plot(*seeds, x="step", y="loss")
    assert plt.get_fignums() == []  # IPython in a terminal
    monkeypatch.setattr(mpl, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    try:
        ax = plot(*seeds, x="step", y="loss")
        assert [plt.figure(number) for number in plt.get_fignums()] == [ax.figure]
        assert ax.figure.get_size_inches().tolist() == [6, 4]
    finally:
        plt.close("all")


def test_no_display_is_needed_and_no_backend_is_chosen(tmp_path: Path) -> None:
    source = """
        import sys, pandas
        from cox.analysis.plotting import plot
        rows = pandas.DataFrame({"x": [0, 1], "y": [0, 1], "exp_id": "r"})
        plot(rows, pandas.DataFrame(index=["r"]), x="x", y="y", path="p.png")
        print("matplotlib.backends.backend_tkagg" in sys.modules)
    """
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
        env={**env, "PYTHONPATH": os.fspath(ROOT), "MPLBACKEND": "TkAgg"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False" and (tmp_path / "p.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "starts"), [("p.png", b"\x89PNG"), ("p.PDF", b"%PDF"), ("a.b.svg", b"<?xml")]
)
def test_figures_are_saved_by_their_suffix(
    seeds: tuple[pd.DataFrame, pd.DataFrame], out: Path, name: str, starts: bytes
) -> None:
    plot(*seeds, x="step", y="loss", hue="opt", path=os.fspath(out / name))
    data = (out / name).read_bytes()
    assert data.startswith(starts) and b"Type3" not in data
    assert [path.name for path in out.iterdir()] == [name]
    if name.endswith("png"):
        assert int.from_bytes(data[16:20], "big") == 900  # 6 inches at 150 dpi


def test_a_figure_that_cannot_be_saved_leaves_the_old_one(
    seeds: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "p.png"
    saved.write_bytes(b"old")

    def full(self: Figure, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(StorageError, match="cannot save a figure.*disk is full"):
        plot(*seeds, x="step", y="loss", path=saved)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("p.png", b"old")]


@pytest.mark.parametrize("name", ["p.jpg", "p", "png"])
def test_an_unknown_suffix_is_refused_before_anything_is_drawn(tmp_path: Path, name: str) -> None:
    nothing: Any = None
    with pytest.raises(CompareError, match=r"\.png, \.pdf, \.svg"):
        plot(nothing, nothing, x="x", y="y", path=tmp_path / name)


# --- Refusals


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"band": "se"}, "'se'.*'minmax'"),
        ({"log": "yx"}, "'yx'.*'xy'"),
        ({"level": 0}, "level=0"),
        ({"most_points": 3}, "most_points=3.*4"),
        ({"hue": "seed", "over": "seed"}, "'seed'.*hue=….*over=…"),
        ({"y": "name"}, "'name' is no number: it holds str"),
        ({"x": "name"}, "'name' is no number: it holds str"),
        ({"y": "empty"}, "nothing to draw"),
        ({"y": "negative", "log": "y"}, "nothing to draw.*positive"),
    ],
)
def test_arguments_without_sense_are_refused(
    seeds: tuple[pd.DataFrame, pd.DataFrame], options: dict[str, Any], told: str
) -> None:
    rows, settings = seeds
    rows = rows.assign(name="n", empty=math.nan, negative=-1)
    with pytest.raises(CompareError, match=told):
        plot(rows, settings, **{"x": "step", "y": "loss", **options})
    with pytest.raises(CompareError, match="nothing to draw"):
        plot(rows[:0], settings, x="step", y="loss", over="seed")


def test_unknown_names_are_told_with_those_there_are(seeds: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    for options, told in (
        ({"x": "stop"}, r"'stop'; there are \['loss', 'step'\]; did you mean 'step'\?"),
        ({"y": "los"}, r"'los'; there are \['loss', 'step'\]; did you mean 'loss'\?"),
        ({"hue": "op"}, r"'op'; there are \['exp_id', 'loss', 'opt', 'seed', 'step'\]; did you mean 'opt'\?"),
        ({"over": "exp_id"}, r"'exp_id'; there are \['opt', 'seed'\]"),
    ):
        with pytest.raises(ColumnNotFoundError, match=told):
            plot(*seeds, **{"x": "step", "y": "loss", **options})


@pytest.mark.parametrize(
    ("package", "extra"), [("matplotlib", "plot"), ("seaborn", "plot"), ("scipy", "stats")]
)
def test_without_a_package_the_extra_is_named(
    seeds: tuple[pd.DataFrame, pd.DataFrame], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'cox\[{extra}\]'"):
        plot(*seeds, x="step", y="loss", hue="opt", over="seed")


# --- Along the axis; bins and smoothing; panels


def test_without_x_the_column_that_counts_or_the_row() -> None:
    rows = table(a=([0, 10, 20], [1.0, 2.0, 3.0]))
    ax = plot(rows, params(a={}), y="loss")
    assert (ax.get_xlabel(), points(ax.lines[0])[0]) == ("step", [0, 10, 20])
    rows["step"] = [0, 0, 1]  # a number that repeats counts no rows
    ax = plot(rows, params(a={}), y="loss")
    assert (ax.get_xlabel(), points(ax.lines[0])[0]) == ("row", [0, 1, 2])
    assert plot(rows, params(a={}), x="row", y="loss").get_xlabel() == "row"


def test_ticks_of_whole_numbers_are_whole() -> None:
    rows = table(a=([0, 1, 2], [5, 5, 5]))
    ax = plot(rows, params(a={}), y="loss")
    save(ax)
    assert all(tick == int(tick) for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_ticklocs())


def test_bins_average_each_run() -> None:
    rows = table(a=(range(4), [0.0, 2.0, 10.0, 20.0]))
    ax = plot(rows, params(a={}), y="loss", bins=2)
    assert points(ax.lines[0]) == [[0.75, 2.25], [1.0, 15.0]]
    ax = plot(table(a=([1, 10, 100, 1000], [1.0, 3.0, 5.0, 7.0])), params(a={}), y="loss", bins=2, log="x")
    assert points(ax.lines[0])[1] == [2.0, 6.0]
    with pytest.raises(CompareError, match="bins=0"):
        plot(rows, params(a={}), y="loss", bins=0)


def test_smoothing_is_that_of_tensorboard() -> None:
    values = [1.0, 3.0, math.nan, 2.0]
    ax = plot(table(a=(range(4), values)), params(a={}), y="loss", smooth=0.5)
    last, weight, expected = 0.0, 0.0, []
    for value in values:
        if not math.isnan(value):
            last, weight = 0.5 * last + 0.5 * value, 0.5 * weight + 0.5
        expected.append(value if math.isnan(value) else last / weight)
    np.testing.assert_allclose(points(ax.lines[0])[1], expected)
    with pytest.raises(CompareError, match="smooth=1"):
        plot(table(a=([0], [1.0])), params(a={}), y="loss", smooth=1)


def test_a_band_does_not_fall_off_a_logarithmic_axis() -> None:
    rows = table(a=([0, 1], [1e-3, 1e-3]), b=([0, 1], [1.0, 1.0]))
    ax = plot(rows, params(a={"seed": 0}, b={"seed": 1}), y="loss", over="seed", log="y")
    assert band(ax)[:, 1].min() == 1e-3  # the interval begins below 0: the least of the runs is its end


def test_several_columns_have_a_panel_each() -> None:
    rows = table(a=([0, 1], [1.0, 2.0]))
    rows["acc"] = rows["loss"] / 2
    axes = plot(rows, params(a={}), y=["loss", "acc"])
    assert [ax.get_ylabel() for ax in axes] == ["loss", "acc"]
    assert axes[0].figure is axes[1].figure
    assert plot(rows, params(a={}), y=["loss", "acc"], ax=axes) == axes
    for wrong in ({"y": []}, {"y": ["loss", "acc"], "ax": axes[0]}):
        with pytest.raises(CompareError, match="y=|ax=… has 1 axes, for 2"):
            plot(rows, params(a={}), **wrong)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("ci", "mean and 95 % interval"),
        ("sd", "mean ± standard deviation"),
        ("minmax", "mean, least to greatest"),
        (None, "mean"),
    ],
)
def test_the_legend_says_what_the_band_is(
    seeds: tuple[pd.DataFrame, pd.DataFrame], kind: str | None, told: str
) -> None:
    ax = plot(*seeds, y="loss", hue="opt", over="seed", band=kind)
    assert ax.get_legend().get_title().get_text() == f"opt\n{told}"
