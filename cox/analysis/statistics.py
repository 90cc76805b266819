"""Numbers for a paper out of many runs, as pure functions of frames.

`compare` reduces each run to one number and describes groups of runs; `diff` says in what two runs
differ. Nothing here reads a file or knows of readers, and nothing is averaged that was not asked for.

A missing cell (None, pandas.NA) is no measurement, and is skipped. NaN is a measurement, that of a run that
diverged, and is never dropped without being told.
"""

from __future__ import annotations

import inspect
import math
import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cox.analysis.choices import INTERVALS, REDUCTIONS
from cox.analysis.parameters import (
    Parameters,
    identity,
    is_missing,
    is_number,
    named_runs,
    not_found,
    uncovered,
)
from cox.errors import CompareError, argument, there_are
from cox.extras import needed
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    import pandas as pd

    from cox.analysis.shown import Comparison, Differences

__all__ = ["compare", "diff"]

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

#: The sections of `diff` that come first.
SECTIONS = ("parameters", "environment", "results")

#: fmin and fmax take NaN only where there is nothing else: the best that a run had before it diverged.
_FUNCTIONS: dict[str, Callable[[Array], Any]] = {
    "last": lambda values: values[-1],
    "first": lambda values: values[0],
    "max": np.fmax.reduce,
    "min": np.fmin.reduce,
    "mean": np.mean,
    "median": np.median,
    "sum": np.sum,
}
#: Cells that a bootstrap holds at once, 80 MB.
_BATCH = 10_000_000


def compare(
    rows: pd.DataFrame,
    params: pd.DataFrame,
    *,
    metric: str,
    by: Sequence[str] = (),
    over: str | Sequence[str] | None = None,
    reduce: str | Callable[[pd.Series[Any]], float] = "last",
    interval: str = "t",
    level: float = 0.95,
    mixed: bool = False,
    resamples: int = 9999,
    seed: int = 0,
) -> Comparison:
    """Describe the runs that share the values of some parameters.

    Each run's `metric` is reduced to one number; then the runs are grouped, and each group is described.

    Args:
        rows: A table of all runs: column `exp_id`, and in each run the rows in order of writing.
        params: A row for each run, with the run's name as index and a column for each parameter.
        metric: The column of `rows`. A bool counts as 0 or 1.
        by: The parameters to group by; none makes one group of all runs.
        over: The parameters that may vary inside a group, such as the seed.
        reduce: 'last', 'first', 'max', 'min', 'mean', 'median', 'sum', or a function of the run's values, a
            float Series without missing cells. 'last' is the last row that has a value. 'max' and 'min'
            are over the numbers there are; the others give NaN where NaN is among what they look at.
        interval: 't' for Student's t interval of the mean, 'bootstrap' for the bias-corrected and
            accelerated one (Efron 1987, "Better Bootstrap Confidence Intervals") of scipy.stats.bootstrap.
        level: The confidence level, between 0 and 1.
        mixed: Whether groups may hold runs that differ in other parameters as well.
        resamples: How many samples the bootstrap draws.
        seed: Of the bootstrap, so that the same runs give the same interval.

    Returns:
        A row for each group, sorted by `by`: numbers, then text, then the rest, then missing. Columns:

        - those of `by`; one that is called like a column below gets the suffix " (parameter)";
        - `n`, the runs with a number; `n_nan`, the runs whose number is NaN, which are in nothing that
          follows;
        - `mean`; `std`, the sample deviation (ddof=1), NaN for one run; `low` and `high`, the interval of
          the mean, NaN for one run and the mean itself where all are equal;
        - `iqm`, the interquartile mean as rliable computes it, scipy.stats.trim_mean(0.25): the mean
          without the n // 4 lowest and the n // 4 highest (Agarwal et al. 2021, "Deep Reinforcement
          Learning at the Edge of the Statistical Precipice"); `min`; `max`.

        Its method `runs()` gives the names of the n runs of each group, sorted, as does `attrs["runs"]`.
        Also in `attrs`: `metric`, `reduce`, `over`, `level` and `interval` as asked; `left_out`, the runs
        without any value; `nan`, the runs with NaN among their values, whatever became of it; `repeated`,
        tuples of runs that share all parameters, as after a repeated seed (none without `over`).

    Raises:
        ColumnNotFoundError: No metric or parameter of that name; names those there are.
        CompareError: The metric is no number, no run has a value, an argument makes no sense, or runs of
            one group differ in a parameter that is neither in `by` nor in `over`.
        MissingExtraError: scipy is not installed.
    """
    cells = Parameters(params)
    grouping, varying = cells.known(by), cells.known(over)
    _check(grouping, varying, interval, level)
    reduced, with_nan = _reduced(rows, metric, reduce)
    groups = cells.groups(sorted(reduced), grouping)
    if not mixed:
        named = [(_named(grouping, values), runs) for values, runs in groups]
        cells.refuse_mixed(named, [*grouping, *varying])
    method = _bootstrap(level, resamples, seed) if interval == "bootstrap" else _student(level)
    described = [_described(runs, reduced, method) for _, runs in groups]
    frame = _as_frame(grouping, [values for values, _ in groups], described)
    frame.attrs = {
        "runs": [row[-1] for row in described],
        "metric": metric,
        "reduce": reduce if isinstance(reduce, str) else getattr(reduce, "__name__", repr(reduce)),
        "over": varying,
        "level": level,
        "interval": interval,
        "left_out": sorted({*cells.runs, *rows[EXP_ID].unique().tolist()} - set(reduced)),
        "nan": with_nan,
        "repeated": _repeated(cells, reduced, varying),
    }
    return frame


def diff(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]], names: tuple[str, str]
) -> Differences:
    """The entries in which two runs differ.

    Args:
        first: A run as section → name → value. The sections are 'parameters', 'environment', 'results', and
            after these whatever else there is.
        second: The other run.
        names: What to call the two.

    Returns:
        Columns `section`, `name`, one of each run's values, and `change`: second - first of two numbers, ''
        of others. All hold objects; None stands for what a run does not have. Values are compared as such: 1
        is 1.0 and not True, a list is the tuple or the array of the same items, NaN is NaN. `attrs['same']`
        is the number of entries that are equal.
    """
    import pandas as pd

    from cox import frames
    from cox.analysis.shown import Differences

    found: list[tuple[Any, ...]] = []
    same = 0
    for section in dict.fromkeys([*SECTIONS, *first, *second]):
        one, two = first.get(section, {}), second.get(section, {})
        for name in dict.fromkeys([*one, *two]):
            was, now = (None if is_missing(value) else value for value in (one.get(name), two.get(name)))
            if identity(was) == identity(now):
                same += 1
            else:
                found.append((section, name, uncovered(was), uncovered(now), _change(was, now)))
    columns = [frames.objects([entry[at] for entry in found]) for at in range(5)]
    frame: Differences = Differences(pd.concat(columns, axis=1))
    frame.columns = pd.Index(["section", "name", *names, "change"])
    frame.attrs = {"same": same}
    return frame


# --- For plots as well


def as_numbers(rows: pd.DataFrame, name: str) -> tuple[Array, Array]:
    """A column's values as float64, and where a cell is missing, each of shape (len(rows),).

    A bool is 0 or 1. NaN is a value wherever the column can tell it from a missing cell; a float column
    of numpy cannot hold a missing cell.

    Raises:
        ColumnNotFoundError: There is no such column; names the numeric ones.
        CompareError: It holds something else.
    """
    if name not in rows or name == EXP_ID:
        numeric = rows.select_dtypes(["number", "bool", "boolean"]).columns
        raise not_found("numeric column", name, [str(known) for known in numeric])
    column = rows[name]
    if column.dtype.kind in "fiub":
        plain = isinstance(column.dtype, np.dtype)
        missing = np.zeros(len(column), dtype=np.bool_) if plain else column.isna().to_numpy(dtype=np.bool_)
        return column.to_numpy(dtype=np.float64, na_value=np.nan), missing
    if column.dtype != np.dtype(object):
        raise CompareError(f"the column {name!r} is no number: it holds {column.dtype}")
    cells = [cell.item() if isinstance(cell, np.generic) else cell for cell in column.tolist()]
    aliens = [i for i, cell in enumerate(cells) if not (isinstance(cell, numbers.Real) or is_missing(cell))]
    if aliens:
        runs = list(dict.fromkeys(str(rows[EXP_ID].iloc[i]) for i in aliens))
        raise CompareError(
            f"the column {name!r} is no number: it holds {type(cells[aliens[0]]).__name__} in "
            f"{named_runs(runs)}; such a run can be left out by exp_filter=… or params=…"
        )
    missing = np.array([is_missing(cell) for cell in cells], dtype=np.bool_)
    return np.array([math.nan if is_missing(cell) else float(cell) for cell in cells]), missing


def by_run(rows: pd.DataFrame, keep: Array) -> dict[str, Array]:
    """The positions of each run's rows, in order of writing, of shape (its rows,).

    Args:
        rows: A table of all runs.
        keep: Which rows count, of shape (len(rows),). Runs without any are not there.
    """
    import pandas as pd

    positions = np.flatnonzero(keep)
    codes, names = pd.factorize(rows[EXP_ID].to_numpy(dtype=object)[positions])
    if not len(names):
        return {}
    positions = positions[np.argsort(codes, kind="stable")]
    ends = np.cumsum(np.bincount(codes))[:-1]
    return dict(zip(map(str, names), np.split(positions, ends), strict=True))


def half_width(n: Any, std: Any, level: float) -> Any:
    """Half of Student's t interval of a mean: t(n - 1, (1 + level) / 2) * std / sqrt(n).

    Args:
        n: How many values, or an array of that; fewer than two give NaN.
        std: Their sample deviation (ddof=1).
        level: The confidence level, between 0 and 1.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    special = needed("scipy.special", "stats", "a confidence interval")
    n = np.asarray(n, dtype=np.float64)
    with np.errstate(all="ignore"):
        return special.stdtrit(np.where(n > 1, n - 1, np.nan), (1 + level) / 2) * std / np.sqrt(n)


def check_level(level: float) -> None:
    """Raise CompareError for a confidence level that is none."""
    if not 0 < level < 1:
        raise CompareError(
            f"{argument('level', level)}: a confidence level lies between 0 and 1, such as 0.95"
        )


# --- Inside

#: From values, their mean and their deviation to the ends of an interval.
_Method: TypeAlias = Callable[[Array, float, float], tuple[float, float]]


def _check(grouping: Sequence[str], varying: Sequence[str], interval: str, level: float) -> None:
    both = sorted(set(grouping) & set(varying))
    if both:
        raise CompareError(
            f"{both} are in {argument('by')} and in {argument('over')}: runs are told apart by them, "
            "or averaged"
        )
    if interval not in INTERVALS:
        raise CompareError(f"{argument('interval', interval)}: {there_are(INTERVALS, interval)}")
    check_level(level)


def _reduced(
    rows: pd.DataFrame, metric: str, reduce: str | Callable[[pd.Series[Any]], float]
) -> tuple[dict[str, float], list[str]]:
    """Each run's number, of those that have a value, and the runs that have NaN among their values."""
    import pandas as pd

    if isinstance(reduce, str) and reduce not in REDUCTIONS:
        raise CompareError(
            f"{argument('reduce', reduce)}: pass a function, or a name; {there_are(REDUCTIONS, reduce)}"
        )
    values, missing = as_numbers(rows, metric)
    found, with_nan = {}, []
    for run, positions in by_run(rows, ~missing).items():
        own = values[positions]
        if np.isnan(own).any():
            with_nan.append(run)
        with np.errstate(all="ignore"):  # of infinities
            number = (
                _FUNCTIONS[reduce](own) if isinstance(reduce, str) else reduce(pd.Series(own, name=metric))
            )
        try:
            found[run] = float(number)
        except (TypeError, ValueError) as error:
            raise CompareError(
                f"{argument('reduce', reduce)} gave no number for run {run}, but {number!r}"
            ) from error
    if not found:
        raise CompareError(f"no run has a value of {metric!r}: {len(rows)} rows were looked at")
    return found, sorted(with_nan)


def _named(names: Sequence[str], values: Sequence[Any]) -> str:
    told = ", ".join(f"{name}={value!r}" for name, value in zip(names, values, strict=True))
    return told or "of all runs"


def _repeated(cells: Parameters, runs: Iterable[str], varying: Sequence[str]) -> list[tuple[str, ...]]:
    """Runs that share all parameters. Those that `mixed` put together differ in some."""
    if not varying:
        return []
    return [tuple(same) for _, same in cells.groups(sorted(runs), cells.names) if len(same) > 1]


def _described(runs: Sequence[str], reduced: Mapping[str, float], method: _Method) -> list[Any]:
    """One group: the statistics in their order, and the runs."""
    numbered = [run for run in runs if not math.isnan(reduced[run])]
    values = np.array([reduced[run] for run in numbered])
    n, n_nan = len(numbered), len(runs) - len(numbered)
    if not n:
        return [n, n_nan, *[math.nan] * 7, ()]
    lowest, highest = float(values.min()), float(values.max())
    equal = lowest == highest
    with np.errstate(all="ignore"):  # of infinities
        # clipped: the mean of equal numbers may miss them by a rounding
        mean = float(np.clip(values.mean(), lowest, highest))
        iqm = float(np.clip(_interquartile_mean(values), lowest, highest))
        std = math.nan if n < 2 else 0.0 if equal else float(values.std(ddof=1))
        low, high = (math.nan, math.nan) if n < 2 else (mean, mean) if equal else method(values, mean, std)
    return [n, n_nan, mean, std, low, high, iqm, lowest, highest, tuple(numbered)]


def _interquartile_mean(values: Array) -> float:
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _student(level: float) -> _Method:
    half_width(2, 1.0, level)  # without scipy, fail whatever the data

    def interval(values: Array, mean: float, std: float) -> tuple[float, float]:
        half = float(half_width(len(values), std, level))
        return mean - half, mean + half

    return interval


def _bootstrap(level: float, resamples: int, seed: int) -> _Method:
    stats = needed("scipy.stats", "stats", "a confidence interval")
    # the new name since scipy 1.15
    seeded = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"

    def interval(values: Array, mean: float, std: float) -> tuple[float, float]:
        if not math.isfinite(std):
            return math.nan, math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered below
            found = stats.bootstrap(
                (values,),
                np.mean,
                n_resamples=resamples,
                batch=max(1, _BATCH // len(values)),
                vectorized=True,
                confidence_level=level,
                method="BCa",
                **{seeded: np.random.default_rng(seed)},
            )
        low, high = found.confidence_interval
        if math.isnan(low) or math.isnan(high):  # no acceleration to be had: its plain percentiles
            low, high = np.quantile(found.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return interval


def _as_frame(
    names: Sequence[str], groups: Sequence[Sequence[Any]], described: Sequence[Sequence[Any]]
) -> Comparison:
    from cox import frames
    from cox.analysis.shown import STATISTICS, Comparison

    columns: dict[str, Any] = {}
    for at, name in enumerate(names):
        shown = f"{name} (parameter)" if name in STATISTICS else name
        cells = [uncovered(values[at]) for values in groups]
        column = frames.objects(cells)
        columns[shown] = column if frames.would_round(cells) else column.infer_objects()
    columns |= {name: [row[at] for row in described] for at, name in enumerate(STATISTICS)}
    frame: Comparison = Comparison(columns)
    return frame


def _change(was: Any, now: Any) -> Any:
    if not (is_number(was) and is_number(now)):
        return ""
    try:
        return now - was
    except OverflowError:  # an int beyond all floats, less a float
        return ""
