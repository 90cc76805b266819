"""A line plot of many runs, fit for a paper, as a pure function of frames.

Nothing is smoothed, binned or averaged that was not asked for. Long lines are thinned so that what
is drawn covers the same pixels. No state of pyplot is touched outside of notebooks.

A missing cell (None, pandas.NA) is no point of a line. NaN is one, where the line has a gap.
"""

from __future__ import annotations

import math
import numbers
import os
import sys
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cox import steps
from cox.analysis.choices import BANDS, LOGARITHMIC
from cox.analysis.parameters import Parameters, identity, is_missing, is_number, not_found, order, shortened
from cox.analysis.statistics import Array, as_numbers, by_run, check_level, half_width
from cox.display.text import printable
from cox.errors import CompareError, argument, there_are
from cox.extras import needed
from cox.storage import fs

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["plot"]

SUFFIXES = (".png", ".pdf", ".svg")
SIZE = (6.0, 4.0)  # inches
DPI = 150
#: More numbers than this are colours of a scale; more names than these move out of the axes, or vanish.
MOST_NUMBERS, MOST_INSIDE, MOST_NAMED = 10, 12, 30
#: Numbers that span so much are spread over the colours by their logarithm.
_WIDE = 1000
_ROWS_OF_NAMES = 18
_LONGEST_NAME = 32
#: Points beyond which matplotlib looks too long for the best place of a legend.
_CROWDED = 20_000
_LINE_STYLES = ("-", "--", ":", "-.")
#: Points of a grid that are averaged at once, to bound the memory: this many floats for each run.
_BLOCK = 1 << 16


@dataclass
class Line:
    """A line to draw: a run's, or the mean of several.

    Attributes:
        hue: The value that its colour stands for.
        runs: Where it comes from.
        x: Where it has points, ascending, of shape (points,).
        y: Its values there; nan is a gap.
        low: The lower end of the band, of the same shape; None without a band.
        high: The upper end.
        least: The least of the runs there, where a band ends whose lower end has no place on a logarithmic
            axis.
        counts: The least and the greatest number of runs behind a point.
    """

    hue: Any
    runs: list[str]
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None
    least: Array | None = None
    counts: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class _Across:
    """What lies along the axis.

    Attributes:
        label: What it is called.
        values: Of shape (nrows,), as float64.
        missing: Which of them are missing, of the same shape.
        whole: Whether all of them are whole numbers, by their type.
    """

    label: str
    values: Array
    missing: Array
    whole: bool


def plot(
    rows: pd.DataFrame,
    params: pd.DataFrame,
    *,
    x: str | None = None,
    y: str | Sequence[str],
    hue: str | None = None,
    over: str | Sequence[str] | None = None,
    band: str | None = "ci",
    level: float = 0.95,
    bins: int | None = None,
    smooth: float = 0.0,
    most_points: int = 2000,
    log: str = "",
    title: str | None = None,
    mixed: bool = False,
    ax: Axes | Sequence[Axes] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draw a line for each run, or the mean over some of them.

    Args:
        rows: A table of all runs: column `exp_id`, and the rows of each run.
        params: A row for each run, with the run's name as index and a column for each parameter.
        x: The column of `rows` along the axis; points are drawn in its order. None: the column that counts
            steps (see `cox.steps`), or else the number of the row in its run, which 'row' always is.
        y: The column of `rows` to draw; several draw a panel each.
        hue: The parameter, or else the column of `rows` ('exp_id' among them), that lines are coloured by.
        over: The parameters, such as the seed, to average over: one line for each hue, the mean of its runs
            at each x. A run that has no row at an x is interpolated linearly between its own neighbours,
            never beyond its ends. Rows of a run at the same x are averaged first, so that each run counts
            once. A run that is NaN at an x does not count there; how many do stands in the legend.
        band: Around a mean, 'ci' for Student's t interval at `level`, 'sd' for one sample deviation to each
            side, 'minmax' for the range of the runs, or None. Where only one run is left, the first two
            end.
        level: The confidence level, between 0 and 1.
        bins: Into how many equal parts to divide the axis; a line then has a point in each, the mean of its
            rows there. None for every row.
        smooth: How much of a point comes from those before it, from 0 to below 1: the exponential moving
            average of TensorBoard, of each run before runs are averaged.
        most_points: About how many points of a line are drawn, see `thinned`. A line that comes with a band
            is given up to three times as many.
        log: The axes to be logarithmic: '', 'x', 'y' or 'xy'. What is not positive has no place there: rows
            with such an x are left out, and such a y is a gap.
        title: Above the axes.
        mixed: Whether to average runs that differ in other parameters as well.
        ax: Where to draw, one for each of several y; a new figure of 6 by 4 inches by default, wider if its
            legend stands outside, or for panels.
        path: Where to save the figure, as .png (150 dpi), .pdf or .svg. A failure leaves no half file.

    Returns:
        The axes, as a list for a list of y; `.figure` is theirs. A figure made here is none of pyplot's and
        needs no display and no closing, except in a notebook with the inline backend, which shows it and
        closes it by itself.

    Raises:
        ColumnNotFoundError: No column or parameter of that name; names those there are.
        CompareError: x or y is no number, an argument makes no sense, nothing is there to draw, or runs
            would be averaged that differ in a parameter other than `hue` and `over`.
        MissingExtraError: matplotlib, seaborn or, for band='ci', scipy is not installed.
        StorageError: The figure cannot be saved.
    """
    _check(band, level, most_points, log, path, bins, smooth)
    for package in ("matplotlib", "seaborn"):
        needed(package, "plot", "a plot")
    cells = Parameters(params)
    varying = cells.known(over)
    if hue in varying:
        both = f"in {argument('hue')} and in {argument('over')}"
        raise CompareError(f"{hue!r} is {both}: runs are told apart by it, or averaged")
    across = _across(rows, x, y)
    columns = [y] if isinstance(y, str) else list(y)
    if not columns:
        raise CompareError(f"{argument('y', y)}: name a column, or several")
    panels = _panels(ax, len(columns))
    bands = _Band(band, level) if varying else None
    for i, (column, drawn) in enumerate(zip(columns, panels, strict=True)):
        lines = list(_lines(rows, cells, across, column, hue, log))
        if not any(np.isfinite(line.y).any() for line in lines):
            raise CompareError(
                f"nothing to draw: no run has a number {column!r} at a number {across.label!r}{_where(log)}"
            )
        lines = _evened(lines, bins, smooth, log_x="x" in log)
        if varying:
            lines = _averaged(lines, cells, hue, varying, band, level, mixed=mixed)
        _prepare(drawn, across, column, log, title if i == 0 else None)
        last = i == len(columns) - 1
        _draw(drawn, lines, hue, most_points, own=ax is None, bands=bands, log=log, legend=last)
        _ticks(drawn, across, rows[column], log)
    if path is not None:
        _save(panels[0], Path(path))
    return panels[0] if isinstance(y, str) else panels


@dataclass(frozen=True)
class _Band:
    """What is drawn around a mean."""

    kind: str | None
    level: float

    def __str__(self) -> str:
        around = {
            "ci": f"mean and {self.level * 100:g} % interval",
            "sd": "mean ± standard deviation",
            "minmax": "mean, least to greatest",
            None: "mean",
        }
        return around[self.kind]


def _across(rows: pd.DataFrame, x: str | None, y: str | Sequence[str]) -> _Across:
    """The column along the axis, or the numbers of the rows."""
    parts = list(by_run(rows, np.ones(len(rows), dtype=np.bool_)).values())
    drawn = {y} if isinstance(y, str) else set(y)
    if x is None:
        names = [name for name in steps.candidates(map(str, rows.columns)) if name not in drawn]
        names = [name for name in names if _has_numbers(rows[name])]
        counting = steps.counting(names, partial(as_numbers, rows), parts)
        if counting is not None:
            return _Across(counting, *as_numbers(rows, counting), whole=True)
    if x is None or (x == steps.ROW and x not in rows):
        places = np.zeros(len(rows))
        for positions in parts:
            places[positions] = np.arange(len(positions))
        return _Across(steps.ROW, places, np.zeros(len(rows), dtype=np.bool_), whole=True)
    values, missing = as_numbers(rows, x)
    return _Across(x, values, missing, whole=rows[x].dtype.kind in "iu")


def _has_numbers(column: pd.Series[Any]) -> bool:
    return column.dtype.kind in "fiub" or any(isinstance(cell, numbers.Real) for cell in column)


def _evened(lines: list[Line], bins: int | None, smooth: float, *, log_x: bool) -> list[Line]:
    """The lines with a point in each bin, and smoothed, as far as that is asked for."""
    if bins is not None:
        places = [np.log10(line.x) if log_x else line.x for line in lines]
        low = min((place[0] for place in places if len(place)), default=0.0)
        high = max((place[-1] for place in places if len(place)), default=1.0)
        lines = [
            _binned(line, place, low, high, bins, log_x=log_x)
            for line, place in zip(lines, places, strict=True)
        ]
    if smooth:
        for line in lines:
            line.y = smoothed(line.y, smooth)
    return lines


def _binned(line: Line, place: Array, low: float, high: float, bins: int, *, log_x: bool) -> Line:
    number = np.minimum((place - low) / ((high - low) or 1.0) * bins, bins - 1).astype(np.intp)
    known = np.isfinite(line.y)
    count = np.bincount(number[known], minlength=bins)
    with np.errstate(invalid="ignore"):  # bins without a row
        means = np.bincount(number[known], weights=line.y[known], minlength=bins) / count
    filled = np.flatnonzero(np.bincount(number, minlength=bins))
    centres = low + (filled + 0.5) * (high - low) / bins
    return Line(line.hue, line.runs, 10**centres if log_x else centres, means[filled])


def smoothed(y: Array, smooth: float) -> Array:
    """The exponential moving average of TensorBoard, without its pull towards zero at the beginning.

    Args:
        y: Of shape (points,); what is not finite is a gap, and stays one.
        smooth: How much of a point comes from those before it, from 0 to below 1.
    """
    import pandas as pd

    means = pd.Series(y).ewm(alpha=1 - smooth, adjust=True, ignore_na=True).mean().to_numpy()
    return np.where(np.isfinite(y), means, np.nan)


def thinned(x: Array, y: Array, most: int, *, log: bool = False) -> Array:
    """Which points of a line to draw, so that it looks as if all were.

    The line's width is cut into most // 4 equal columns, and of each the first, the last, the lowest and the
    highest point are kept: M4 (Jugel, Jerzak, Hackenbroich and Markl 2014, "M4: A Visualization-Oriented Time
    Series Data Aggregation"). Spikes stay, and nothing is smoothed. A column with gaps keeps its first and
    its last one too.

    Args:
        x: Ascending, of shape (points,).
        y: Of the same shape; what is not finite is a gap.
        most: Lines of so many points or fewer are kept whole.
        log: Whether the columns are equal on a logarithmic axis.

    Returns:
        Positions, ascending, of shape (kept,), with kept <= most where there are no gaps.
    """
    if len(x) <= most:
        return np.arange(len(x))
    columns = most // 4
    place = np.log10(x) if log else x
    span = place[-1] - place[0]
    column = np.minimum((place - place[0]) / (span or 1.0) * columns, columns - 1).astype(np.intp)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    kept: list[int] = []
    for start, end in zip(starts, [*starts[1:], len(x)], strict=True):
        values = y[start:end]
        finite = np.flatnonzero(np.isfinite(values))
        if len(finite):
            there = values[finite]
            ends = (finite[0], finite[there.argmin()], finite[there.argmax()], finite[-1])
            kept += [start + at for at in ends]
        if len(finite) < len(values):
            gaps = np.flatnonzero(~np.isfinite(values))
            kept += [start + gaps[0], start + gaps[-1]]
    return np.unique(np.array(kept, dtype=np.intp))


# --- From rows to lines


def _check(
    band: str | None,
    level: float,
    most_points: int,
    log: str,
    path: str | os.PathLike[str] | None,
    bins: int | None,
    smooth: float,
) -> None:
    if band not in BANDS:
        raise CompareError(f"{argument('band', band)}: {there_are(BANDS, str(band))}")
    if log not in LOGARITHMIC:
        raise CompareError(f"{argument('log', log)}: {there_are(LOGARITHMIC, log)}")
    if bins is not None and bins < 1:
        raise CompareError(f"{argument('bins', bins)}: a line needs at least one part of the axis")
    if not 0 <= smooth < 1:
        raise CompareError(f"{argument('smooth', smooth)}: give a number from 0 to below 1, such as 0.6")
    if most_points < 4:
        raise CompareError(f"most_points={most_points!r}: a line needs at least 4")
    if path is not None and Path(path).suffix.lower() not in SUFFIXES:
        raise CompareError(f"{os.fspath(path)}: a figure is saved as one of {', '.join(SUFFIXES)}")
    check_level(level)


def _lines(
    rows: pd.DataFrame, cells: Parameters, x: _Across, y: str, hue: str | None, log: str
) -> Iterator[Line]:
    """A line for each run, and for each of its hues if they are a column of the rows."""
    across, no_x = x.values, x.missing
    up, no_y = as_numbers(rows, y)
    keep = ~no_x & ~no_y & np.isfinite(across)
    if "x" in log:
        keep &= across > 0
    if "y" in log:
        up = np.where(up > 0, up, np.nan)
    column = None if hue is None or hue in cells.names else _codes(rows, cells, hue)
    for run, positions in by_run(rows, keep).items():
        if column is None:
            yield _line(None if hue is None else cells.value(run, hue), run, across, up, positions)
            continue
        codes, values = column
        for code in np.unique(codes[positions]):
            yield _line(values[code], run, across, up, positions[codes[positions] == code])


def _line(hue: Any, run: str, x: Array, y: Array, positions: Array) -> Line:
    ascending = positions[np.argsort(x[positions], kind="stable")]
    values = y[ascending]
    return Line(hue, [run], x[ascending], np.where(np.isfinite(values), values, np.nan))


def _codes(rows: pd.DataFrame, cells: Parameters, hue: str) -> tuple[Array, list[Any]]:
    """A column as numbers of its values, and these."""
    if hue not in rows:
        raise not_found("parameter or column", hue, [*cells.names, *map(str, rows.columns)])
    seen: dict[Hashable, int] = {}
    values: list[Any] = []
    codes = np.empty(len(rows), dtype=np.intp)
    for row, value in enumerate(rows[hue].tolist()):
        code = codes[row] = seen.setdefault(identity(value), len(seen))
        if code == len(values):
            values.append(None if is_missing(value) else value)
    return codes, values


# --- Means


def _averaged(
    lines: Sequence[Line],
    cells: Parameters,
    hue: str | None,
    varying: Sequence[str],
    band: str | None,
    level: float,
    *,
    mixed: bool,
) -> list[Line]:
    groups: dict[Hashable, list[Line]] = {}
    for line in sorted(lines, key=lambda line: order(line.hue)):
        groups.setdefault(identity(line.hue), []).append(line)
    if not mixed:
        named = [
            (
                "of all runs" if hue is None else f"{hue}={group[0].hue!r}",
                [line.runs[0] for line in group],
            )
            for group in groups.values()
        ]
        cells.refuse_mixed(named, varying if hue is None else [hue, *varying], apart="hue")
    return [_mean([_once(line) for line in group], band, level) for group in groups.values()]


def _once(line: Line) -> Line:
    """A line with one point at each x, the mean of those that are there."""
    x, where = np.unique(line.x, return_inverse=True)
    if len(x) == len(line.x):
        return line
    return Line(line.hue, line.runs, x, np.bincount(where, weights=line.y) / np.bincount(where))


def _mean(lines: Sequence[Line], band: str | None, level: float) -> Line:
    """The mean of lines, at every x that one of them has."""
    grid = lines[0].x
    if any(not np.array_equal(line.x, grid) for line in lines[1:]):
        grid = np.unique(np.concatenate([line.x for line in lines]))
    counts, means, lows, highs, leasts = [], [], [], [], []
    for start in range(0, len(grid), _BLOCK):
        block = grid[start : start + _BLOCK]
        # at a point of the line's own this is its value, to the bit
        values = np.array([np.interp(block, line.x, line.y, left=np.nan, right=np.nan) for line in lines])
        count, mean, low, high = _moments(values, band, level)
        counts.append(count)
        means.append(mean)
        lows.append(low)
        highs.append(high)
        leasts.append(np.fmin.reduce(values))
    count = np.concatenate(counts)
    made = Line(lines[0].hue, [line.runs[0] for line in lines], grid, np.concatenate(means))
    made.counts = (int(count[count > 0].min(initial=len(lines))), int(count.max()))
    if band is not None:
        made.low, made.high, made.least = map(np.concatenate, (lows, highs, leasts))
    return made


def _moments(values: Array, band: str | None, level: float) -> tuple[Array, Array, Array, Array]:
    """How many runs, their mean, and the band's ends at each x, of values of shape (runs, xs)."""
    count = np.isfinite(values).sum(axis=0)
    with np.errstate(all="ignore"):  # no run, or one
        mean = np.nansum(values, axis=0) / np.where(count, count, np.nan)
        if band == "minmax":
            return count, mean, np.fmin.reduce(values), np.fmax.reduce(values)
        squares = np.nansum((values - mean) ** 2, axis=0)
        half = np.sqrt(squares / np.where(count > 1, count - 1, np.nan))
    if band == "ci":
        half = half_width(count, half, level)
    return count, mean, mean - half, mean + half


# --- From lines to a picture


def _panels(ax: Axes | Sequence[Axes] | None, count: int) -> list[Any]:
    """The axes to draw on, one for each column."""
    if ax is None:
        return _new_axes(count)
    given = list(np.ravel(np.asarray(ax, dtype=object)))
    if len(given) != count:
        raise CompareError(f"{argument('ax')} has {len(given)} axes, for {count} columns to draw")
    return given


def _ticks(ax: Any, x: _Across, column: pd.Series[Any], log: str) -> None:
    """Where all numbers are whole, the ticks are, too."""
    from matplotlib.ticker import MaxNLocator

    if x.whole and "x" not in log:
        ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    if column.dtype.kind in "iu" and "y" not in log:
        low, high = ax.get_ylim()
        if high - low < 1:  # no two whole numbers
            ax.set_ylim(math.floor(low), math.ceil(high) if math.ceil(high) > math.floor(low) else low + 1)
        ax.yaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))


def _new_axes(count: int) -> list[Any]:
    import matplotlib as mpl

    columns = min(count, 3)
    lines = math.ceil(count / columns)
    size = SIZE if count == 1 else (4.2 * columns, 3.2 * lines)
    # only a notebook is asked for its backend: elsewhere the question itself would choose one
    if "IPython" in sys.modules and "inline" in mpl.get_backend():
        from matplotlib import pyplot as plt

        figure: Any = plt.figure(figsize=size, layout="constrained")
        return [figure.add_subplot(lines, columns, i + 1) for i in range(count)]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return [figure.add_subplot(lines, columns, i + 1) for i in range(count)]


def _prepare(ax: Any, x: _Across, y: str, log: str, title: str | None) -> None:
    import seaborn as sns

    ax.set_xlabel(_told(x.label, 60))
    ax.set_ylabel(_told(y, 45))
    ax.set_xscale("log" if "x" in log else "linear")
    ax.set_yscale("log" if "y" in log else "linear")
    if title is not None:
        ax.set_title(textwrap.fill(title, 60), loc="left", fontsize="medium")
    ax.margins(x=0.02)
    ax.grid(visible=True, color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    sns.despine(ax=ax)


def _draw(
    ax: Any,
    lines: Sequence[Line],
    hue: str | None,
    most: int,
    *,
    own: bool,
    bands: _Band | None,
    log: str,
    legend: bool,
) -> None:
    values = sorted({identity(line.hue): line.hue for line in lines}.values(), key=order)
    scale = _scale(values)
    looks = _looks(values, scale)
    points = 0
    weight = _weight(len(lines), means=bands is not None)
    for line in lines:
        points += _draw_line(ax, line, looks[identity(line.hue)], weight, most, log)
    if not legend:
        return
    if scale is not None:
        ax.figure.colorbar(scale, ax=ax, label=_told(str(hue), 45))
        if bands is not None:
            _note(ax, str(bands))
    elif hue is not None and len(values) > MOST_NAMED:
        note = f"{len(lines)} lines, {len(values)} values of {_told(hue)}"
        _note(ax, note if bands is None else f"{note}; {bands}")
    elif hue is not None or bands is not None:
        names = {identity(value): "" if hue is None else _text(value) for value in values}
        if bands is not None:
            names = {identity(line.hue): _counted(names[identity(line.hue)], line) for line in lines}
        titles = [_told(hue)] if hue is not None else []
        titles += [str(bands)] if bands is not None else []
        _legend(ax, names, looks, "\n".join(titles), outside=points > _CROWDED, own=own)


def _note(ax: Any, text: str) -> None:
    ax.set_title(text, loc="right", fontsize="x-small", color="0.4")


def _draw_line(
    ax: Any,
    line: Line,
    look: Mapping[str, Any],
    weight: Mapping[str, float],
    most: int,
    log: str,
) -> int:
    """Returns the number of points drawn."""
    drawn = thinned(line.x, line.y, most, log="x" in log)
    if line.low is not None and line.high is not None:
        ends = [thinned(line.x, end, most, log="x" in log) for end in (line.low, line.high)]
        drawn = np.unique(np.concatenate([drawn, *ends]))
        low, high = line.low[drawn], line.high[drawn]
        if "y" in log and line.least is not None:
            low = np.where(low <= 0, line.least[drawn], low)
        ax.fill_between(line.x[drawn], low, high, color=look["color"], alpha=0.2, linewidth=0)
    x, y = line.x[drawn], line.y[drawn]
    ax.plot(x, y, **look, **weight)
    there = np.isfinite(y)
    beside = np.concatenate([[False], there, [False]])
    alone = there & ~beside[:-2] & ~beside[2:]  # between two gaps a line has no length
    if alone.any():
        ax.plot(x[alone], y[alone], ".", color=look["color"], markersize=3)
    return len(drawn)


def _weight(lines: int, *, means: bool) -> dict[str, float]:
    """Thinner and fainter, the more lines there are."""
    if lines <= 10:
        return {"linewidth": 1.6 if means else 1.0, "alpha": 1.0 if means else 0.9}
    return {"linewidth": 0.8, "alpha": 0.8} if lines <= 60 else {"linewidth": 0.5, "alpha": 0.5}


def _scale(values: Sequence[Any]) -> Any:
    """A continuous scale of colours, where the hues are many numbers; otherwise None."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    found = [float(value) for value in values if is_number(value) and math.isfinite(value)]
    if len(found) <= MOST_NUMBERS or not all(value is None or is_number(value) for value in values):
        return None
    wide = min(found) > 0 and max(found) / min(found) >= _WIDE
    return ScalarMappable((LogNorm if wide else Normalize)(min(found), max(found)), "viridis")


def _looks(values: Sequence[Any], scale: Any) -> dict[Hashable, dict[str, Any]]:
    """Each hue's colour and line style: ten colours that the colour-blind can tell apart, in four styles."""
    import seaborn as sns

    if scale is not None:
        known = [order(value)[0] == 0 for value in values]  # grey for what is missing
        shades = [
            scale.to_rgba(value) if there else "0.6" for value, there in zip(values, known, strict=True)
        ]
        return {identity(value): {"color": shade} for value, shade in zip(values, shades, strict=True)}
    colors = sns.color_palette("colorblind")
    styles = _LINE_STYLES if len(values) <= MOST_NAMED else _LINE_STYLES[:1]  # nobody looks them up then
    return {
        identity(value): {
            "color": colors[at % len(colors)],
            "linestyle": styles[at // len(colors) % len(styles)],
        }
        for at, value in enumerate(values)
    }


def _legend(
    ax: Any,
    names: Mapping[Hashable, str],
    looks: Mapping[Hashable, Mapping[str, Any]],
    title: str,
    *,
    outside: bool,
    own: bool,
) -> None:
    from matplotlib.lines import Line2D

    many = len(names) > MOST_INSIDE
    options: dict[str, Any] = {
        "handles": [Line2D([], [], linewidth=1.8, **looks[key]) for key in names],
        "labels": list(names.values()),
        "title": title,
        "fontsize": "x-small" if many else "small",
        "title_fontsize": "small",
        "frameon": not (many or outside),
        "ncols": math.ceil(len(names) / _ROWS_OF_NAMES),
    }
    if not (many or outside):
        ax.legend(loc="best", framealpha=0.8, **options)
        return
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, **options)
    if own:  # the axes keep their width
        ax.figure.set_figwidth(SIZE[0] + legend.get_window_extent().width / ax.figure.dpi)


def _counted(name: str, line: Line) -> str:
    """A line's name with how many runs are behind it."""
    least, most = line.counts
    number = str(most) if least == most else f"{least}–{most}"
    return f"{name} (n={number})" if name else f"mean (n={number})"


def _text(value: Any) -> str:
    if value is None:
        return "missing"
    return _told(f"{value:g}" if isinstance(value, float) else str(value))


#: What TeX would take for more than a character.
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "{}$&#_%"},
}


def _told(text: str, most: int = _LONGEST_NAME) -> str:
    """A text as matplotlib shows it: not as a formula, and not left out for an underscore at its front."""
    import matplotlib as mpl

    short = shortened(printable(" ".join(text.split())), most)
    if mpl.rcParams["text.usetex"]:
        return "".join(_TEX.get(char, char) for char in short)
    shown = short.replace("$", r"\$")
    return f" {shown}" if short.startswith("_") else shown  # legends of matplotlib 3.8 leave it out


def _where(log: str) -> str:
    return f" that is positive, as {argument('log', log)} needs it" if log else ""


def _save(ax: Any, path: Path) -> None:
    import matplotlib as mpl

    figure = ax.figure.figure  # of a subfigure, the whole
    kind = path.suffix.lower().removeprefix(".")

    def write(beside: Path) -> None:
        with mpl.rc_context({"pdf.fonttype": 42}):  # journals refuse the default, Type 3
            figure.savefig(beside, format=kind, dpi=DPI)

    try:
        fs.replace_file(path, write, durable=False)
    except OSError as error:
        raise fs.refused(error, "cannot save a figure", path) from error
