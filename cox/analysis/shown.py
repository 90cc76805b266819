"""Frames that print themselves as the commands print them: whole numbers, no index, as wide as the terminal.

What is made of such a frame (a part, a sorted copy) is an ordinary DataFrame. Imports pandas: it is imported
where the first such frame is made.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import pandas as pd

from cox.display import html
from cox.display.fitting import fit
from cox.display.grid import DECORATION, PINNED, USUAL, Column, Grid, from_frame
from cox.display.text import ELLIPSIS, briefly, text

#: The columns of a comparison after those that it groups by.
STATISTICS = ("n", "n_nan", "mean", "std", "low", "high", "iqm", "min", "max")
_LINES = 40


class _Shown(pd.DataFrame):
    """A DataFrame with a look of its own."""

    @property
    def _title(self) -> str:
        raise NotImplementedError

    def _as_grid(self) -> Grid | None:
        """What is shown; None if its columns are no longer those that it was made with."""
        raise NotImplementedError

    def __repr__(self) -> str:
        grid = self._as_grid()
        if grid is None or not len(self) or len(self) > _LINES:
            return super().__repr__()
        fitted = fit(grid, shutil.get_terminal_size((80, 24)).columns)
        hidden = [f"(not shown: {', '.join(fitted.hidden)})"] if fitted.hidden else []
        return "\n".join([self._title, *fitted.lines(rule="─"), *hidden])

    def _repr_html_(self) -> str | None:
        grid = self._as_grid()
        if grid is None or not len(self) or len(self) > _LINES:
            plain: str | None = pd.DataFrame(self).to_html(max_rows=_LINES, border=0)
            return plain
        return html.of_grid(self._title, "", grid)


class Comparison(_Shown):
    """What `CollectionReader.compare` returns: a row for each group of runs.

    What it was asked for stands in `attrs`; `runs()` names the runs of each group.
    """

    def runs(self) -> pd.Series[Any]:
        """The names of the runs that went into each group, as tuples, with the index of this frame."""
        names = pd.Series([None] * len(self.attrs["runs"]), dtype=object)
        for i, group in enumerate(self.attrs["runs"]):
            names[i] = tuple(group)
        return names

    @property
    def _title(self) -> str:
        asked = self.attrs
        which = "" if asked["reduce"] == "last" else f"{asked['reduce']} "
        over = f" over {', '.join(asked['over'])}" if asked["over"] else ""
        how = "" if asked["interval"] == "t" else f", {asked['interval']}"
        level = f"{asked['level'] * 100:g} % interval"
        return f"{which}{asked['metric']}: mean{over}, and its {level} from low to high{how}"

    def _as_grid(self) -> Grid | None:
        if "metric" not in self.attrs or list(self.columns[-len(STATISTICS) :]) != list(STATISTICS):
            return None
        grid = from_frame(self)
        columns = {column.name: column for column in grid.columns[-len(STATISTICS) :]}
        digits = decimals(columns["low"].cells, columns["high"].cells)
        for i, name in enumerate(("mean", "low", "high", "std", "iqm", "min", "max")):
            columns[name].shown = _rounded(digits)
            columns[name].rank = PINNED + 1 if i < 3 else DECORATION + i
        shown = groups(grid, len(STATISTICS)) + [columns["n"]]
        if any(columns["n_nan"].cells):
            shown.append(columns["n_nan"])
        return Grid(shown + [columns[name] for name in ("mean", "low", "high", "std", "iqm", "min", "max")])


def groups(grid: Grid, statistics: int) -> list[Column]:
    """The columns that a comparison groups by, which tell its rows apart."""
    columns = grid.columns[:-statistics]
    for column in columns:
        column.tells, column.rank = True, PINNED
    return columns


def decimals(low: list[float], high: list[float]) -> int | None:
    """So many digits after the point that the narrowest interval has two of its own; None without any."""
    halves = [(b - a) / 2 for a, b in zip(low, high, strict=True)]
    some = [half for half in halves if math.isfinite(half) and half > 0]
    return min(12, max(0, 1 - math.floor(math.log10(min(some))))) if some else None


def _rounded(digits: int | None) -> Callable[[Any], str]:
    def shown(value: Any) -> str:
        if digits is None or not isinstance(value, float) or not math.isfinite(value) or abs(value) >= 1e9:
            return briefly(value)
        return f"{value:.{digits}f}"

    return shown


class Differences(_Shown):
    """What `CollectionReader.diff` returns: a row for each entry in which two runs differ."""

    @property
    def _title(self) -> str:
        same = self.attrs.get("same", 0)
        return f"{len(self)} {'difference' if len(self) == 1 else 'differences'}, {same} the same"

    def _as_grid(self) -> Grid | None:
        if len(self.columns) != 5 or self.columns[4] != "change":
            return None
        return differences(self)


def differences(frame: pd.DataFrame, short: Callable[[Any], str] = str) -> Grid:
    """The differences of two runs for people.

    Args:
        frame: What `diff` returned.
        short: Shortens the name of a run.
    """
    grid = from_frame(frame)
    section, name, first, second, change = grid.columns
    section.rank, section.whole, name.rank, name.tells = USUAL, True, PINNED, True
    pairs = [apart(one, two) for one, two in zip(first.cells, second.cells, strict=True)]
    for column, i in ((first, 0), (second, 1)):
        column.title, column.rank = short(column.name), PINNED + 1
        column.cells = [pair[i] for pair in pairs]
    change.cells = [None if cell == "" else cell for cell in change.cells]
    change.shown, change.rank = briefly, PINNED
    return grid


def apart(one: Any, two: Any) -> tuple[Any, Any]:
    """Two values so that one sees what differs: long texts from there on, numbers with all their digits."""
    if one is None or two is None:
        return one, two
    if isinstance(one, str) and isinstance(two, str):
        common = os.path.commonprefix([one, two])
        before = common.rfind(" ", 0, max(0, common.rfind(" "))) + 1  # the word, and the one before it
        start = before if len(common) - before <= 16 else len(common) - 5
        return (ELLIPSIS + one[start:], ELLIPSIS + two[start:]) if start > 8 else (one, two)
    return (repr(one), repr(two)) if text(one) == text(two) else (one, two)
