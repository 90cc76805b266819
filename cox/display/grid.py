"""Rows as columns of plain values: what every command prints, and a notebook shows."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cox.display.text import printable, text

if TYPE_CHECKING:
    import pandas as pd

#: What has to stay in a narrow table, what is usual, and what is left out first.
PINNED, USUAL, DECORATION = 0, 500, 900


@dataclass(slots=True)
class Column:
    """A column of a grid.

    Attributes:
        name: What it is called as data.
        cells: Its values.
        title: What it is called for people; by default the name.
        shown: Turns a value into text for people.
        style: Tells the colour of a value; '' for none.
        rank: Where a table is too wide, columns of a higher rank are left out first. From `DECORATION` on
            they are left out before anything is cut that tells rows apart.
        tells: Whether it tells rows apart: cells that differ are never cut to the same text.
        among: Further texts that its cells must not be mistaken for, such as the names of all runs. Such a
            column is cut last, and in the middle.
        whole: Whether it must not be cut at all. Numbers never are.
        numeric: Whether its texts are numbers, such as a mean with its interval.
    """

    name: str
    cells: list[Any]
    title: str | None = None
    shown: Callable[[Any], str] | None = None
    style: Callable[[Any], str] | None = None
    rank: int = USUAL
    tells: bool = False
    among: Sequence[str] | None = None
    whole: bool = False
    numeric: bool = False

    @property
    def heading(self) -> str:
        """The title, fit to be printed."""
        return printable(self.name if self.title is None else self.title)

    @property
    def is_number(self) -> bool:
        """Whether it is to be aligned to the right."""
        there = [cell for cell in self.cells if cell is not None]
        return bool(there) and (self.numeric or all(map(_is_number, there)))

    def texts(self) -> list[str]:
        """Its cells for people. Numbers that six digits would make look equal have all of theirs."""
        shown = self.shown or text
        texts = ["" if cell is None else shown(cell) for cell in self.cells]
        if self.tells and self.shown is None and any(isinstance(cell, float) for cell in self.cells):
            numbers = {cell for cell in self.cells if _is_number(cell) and cell == cell}
            if len(set(map(shown, numbers))) < len(numbers):
                return [
                    repr(cell) if isinstance(cell, float) else text
                    for cell, text in zip(self.cells, texts, strict=True)
                ]
        return texts


@dataclass(slots=True)
class Grid:
    """Rows, as columns of plain values: None, bool, int, float, str, datetime, and objects.

    Attributes:
        columns: All of the same length.
        frame: The frame that it was made of, if any, whose types Parquet keeps.
    """

    columns: list[Column]
    frame: pd.DataFrame | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.columns[0].cells) if self.columns else 0

    @property
    def names(self) -> list[str]:
        """The columns' names."""
        return [column.name for column in self.columns]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows, one by one."""
        return zip(*(column.cells for column in self.columns), strict=True)


def from_frame(frame: pd.DataFrame) -> Grid:
    """A frame's columns, without its index."""
    columns = [Column(str(name), _cells(frame.iloc[:, i])) for i, name in enumerate(frame.columns)]
    return Grid(columns, frame)


def _cells(values: pd.Series[Any]) -> list[Any]:
    """The cells of one column. pandas has nan for a missing text, which nobody measured."""
    cells: list[Any] = values.tolist()
    if values.dtype.kind in "biuf" and hasattr(values.dtype, "isbuiltin"):  # numpy's: they are plain
        return cells
    if str(values.dtype) in ("str", "string"):
        return [cell if isinstance(cell, str) else None for cell in cells]
    return list(map(plain, cells))


def plain(value: Any) -> Any:
    """A value without the types of numpy and pandas: what is missing is None, a duration is in seconds."""
    kind = type(value).__name__
    if value is None or kind in ("NAType", "NaTType"):
        return None
    if kind == "Timestamp":
        return value.to_pydatetime(warn=False)  # of its nanoseconds nothing is said
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if hasattr(value, "tolist") and type(value).__module__ == "numpy":
        return value.tolist()
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
