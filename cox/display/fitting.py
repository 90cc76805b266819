"""A grid in lines that are not too wide.

What gives way, in this order: long texts, down to thirty characters; columns that only decorate; the names of
runs and other texts, headings too; then columns, those of the highest rank first. Numbers are never cut, and
what tells rows apart only so far that it still does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cox.display.grid import DECORATION, PINNED, Column, Grid
from cox.display.text import ELLIPSIS, cut, padded, width

GAP = "  "
#: To how many characters texts are cut, before and after the decoration is left out.
_EARLY, _LATE = (60, 40, 30), (24, 20, 16, 12)
#: The same for what has to stay in a terminal too narrow for that.
_LAST = (10, 8)
#: Names of runs are not cut below this, and headings of columns not below that, unless nothing else is left.
_LEAST_NAME, _LEAST_HEADING = 20, 8


@dataclass(slots=True)
class Fitted:
    """What of a grid is shown.

    Attributes:
        headings: Of the columns that are shown.
        cells: Their cells.
        columns: The columns themselves.
        hidden: The headings of the other columns.
    """

    headings: list[str]
    cells: list[list[str]]
    columns: list[Column]
    hidden: list[str]

    def lines(
        self,
        paint: Callable[[str, str], str] | None = None,
        *,
        rule: str = "",
        cut_at: int | None = None,
    ) -> Iterator[str]:
        """The heading, a rule below it, and a line for each row.

        Args:
            paint: Colours a text: called with it and with the name of a colour, or 'bold'.
            rule: What the rule is made of; '' for none.
            cut_at: Before which row an ellipsis stands for others.
        """
        widths = [max(map(width, [h, *cells])) for h, cells in zip(self.headings, self.cells, strict=True)]
        right = [column.is_number for column in self.columns]
        yield self._line([(heading, "bold") for heading in self.headings], widths, right, paint)
        if rule:
            yield rule * (sum(widths) + len(GAP) * (len(widths) - 1))
        for i, texts in enumerate(zip(*self.cells, strict=True)):
            if i == cut_at:
                yield self._line([("…", "")] * len(widths), widths, right, paint)
            styles = [column.style(column.cells[i]) if column.style else "" for column in self.columns]
            yield self._line(list(zip(texts, styles, strict=True)), widths, right, paint)

    @staticmethod
    def _line(
        cells: Sequence[tuple[str, str]],
        widths: Sequence[int],
        right: Sequence[bool],
        paint: Callable[[str, str], str] | None,
    ) -> str:
        texts = [
            padded(text, columns, right=is_right)
            for (text, _), columns, is_right in zip(cells, widths, right, strict=True)
        ]
        if texts:
            texts[-1] = texts[-1].rstrip()
        if paint is not None:
            texts = [
                paint(text, style) if style and text else text
                for text, (_, style) in zip(texts, cells, strict=True)
            ]
        return GAP.join(texts).rstrip()


def natural(grid: Grid) -> Fitted:
    """All columns, however wide."""
    texts = [column.texts() for column in grid.columns]
    return Fitted([column.heading for column in grid.columns], texts, grid.columns, [])


def fit(grid: Grid, columns: int) -> Fitted:
    """The columns that fit into a width, and their cells, cut where that is needed."""
    slots = [_Slot(column) for column in grid.columns]
    shown = _chosen(slots, columns)
    _widen(shown, columns)
    if len(shown) == 1 and _total(shown) > columns:  # not even one column fits
        shown[0].squeeze(columns)
    headings = _cut_headings(shown)
    hidden = [slot.column.heading for slot in slots if slot not in shown]
    return Fitted(headings, [slot.cells() for slot in shown], [slot.column for slot in shown], hidden)


# --- One column


class _Slot:
    """A column, and how much of it is shown."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self.texts = column.texts()
        self.whole_width = max(map(width, self.texts), default=0)
        self.is_rigid = column.whole or column.is_number
        # numbers are not cut in a column that also has text
        self._least = max(
            (
                width(text)
                for text, cell in zip(self.texts, column.cells, strict=True)
                if isinstance(cell, (int, float))
            ),
            default=0,
        )
        self.limit: int | None = None
        self._cuts: dict[int, tuple[int, str]] = {}

    @property
    def cell_width(self) -> int:
        """How wide its cells are."""
        return self.whole_width if self.limit is None else min(self.whole_width, self._cut(self.limit)[0])

    @property
    def heading_width(self) -> int:
        """How wide its heading may be."""
        whole = width(self.column.heading)
        if self.limit is None:
            return whole
        return min(whole, max(self.cell_width, self.limit, _LEAST_HEADING))

    @property
    def width(self) -> int:
        return max(self.cell_width, self.heading_width)

    def cells(self) -> list[str]:
        """Its cells, cut."""
        if self.limit is None or self.cell_width == self.whole_width:
            return self.texts
        columns, keep = self._cut(self.limit)
        return [cut(text, columns, keep) for text in self.texts]

    def squeeze(self, columns: int) -> None:
        """Cut it to a width, come what may."""
        self.limit = columns
        self._cuts[columns] = columns, "both"

    def _cut(self, limit: int) -> tuple[int, str]:
        """The width that its cells are cut to, and what is kept of them."""
        if limit not in self._cuts:
            self._cuts[limit] = self._find_cut(limit)
        return self._cuts[limit]

    def _find_cut(self, limit: int) -> tuple[int, str]:
        limit = max(limit, self._least)
        names, whole = self.column.among, self.whole_width
        if names is not None:
            limit = max(limit, _LEAST_NAME)
        if self.is_rigid or limit >= self.whole_width:
            return self.whole_width, "start"
        if names is not None:
            widths = range(limit, self.whole_width, 2)
            return next(
                (columns for columns in widths if _can_be_found(self.texts, {*self.texts, *names}, columns)),
                whole,
            ), "both"
        texts = set(self.texts)
        for columns in range(limit, self.whole_width, 4):
            for keep in ("start", "both", "end"):
                if len({cut(text, columns, keep) for text in texts}) == len(texts):
                    return columns, keep
            if not self.column.tells:
                return limit, "start"
        return self.whole_width, "start"


def _can_be_found(texts: Iterable[str], names: Iterable[str], columns: int) -> bool:
    """Whether each name, cut in the middle, still is that of one run: no other begins and ends so."""
    ends = {
        (text.index(ELLIPSIS), len(text) - text.index(ELLIPSIS) - 1): None
        for text in (cut(name, columns, "both") for name in texts)
        if ELLIPSIS in text
    }
    for head, tail in ends:
        alike = Counter((name[:head], name[-tail:]) for name in names if len(name) >= head + tail)
        if any(alike[name[:head], name[-tail:]] > 1 for name in texts if width(name) > columns):
            return False
    return True


# --- All columns


def _total(slots: Sequence[_Slot]) -> int:
    return sum(slot.width for slot in slots) + len(GAP) * (len(slots) - 1)


def _chosen(slots: list[_Slot], columns: int) -> list[_Slot]:
    """The columns that are shown, as narrow as they must be for that."""
    shown = slots
    if _total(shown) <= columns:
        return shown
    for limit in _EARLY:
        for slot in slots:
            slot.limit = None if slot.column.among is not None else limit
        if _total(shown) <= columns:
            return shown
    decoration = [slot for slot in slots if slot.column.rank >= DECORATION]
    for slot in sorted(decoration, key=lambda slot: -slot.column.rank):
        shown = [other for other in shown if other is not slot]
        if _total(shown) <= columns:
            return shown
    for limit in _LATE:
        for slot in shown:
            slot.limit = limit
        if _total(shown) <= columns:
            return shown
    pinned = [slot for slot in shown if slot.column.rank <= PINNED + 1]
    for limit in _LAST if _total(pinned) > columns else ():
        for slot in pinned:
            slot.limit = limit
    return _most_important(shown, columns)


def _most_important(slots: list[_Slot], columns: int) -> list[_Slot]:
    """As many as fit, by their rank; always one."""
    order = sorted(range(len(slots)), key=lambda i: (slots[i].column.rank, i))
    taken: set[int] = set()
    used = -len(GAP)
    for i in order:
        more = len(GAP) + slots[i].width
        if not taken or used + more <= columns:
            taken.add(i)
            used += more
    return [slots[i] for i in sorted(taken)]


def _widen(shown: list[_Slot], columns: int) -> None:
    """Give the space that is left to the columns that were cut, the most important first."""
    for slot in sorted(shown, key=lambda slot: slot.column.rank):
        if slot.limit is None:
            continue
        before = slot.limit
        room = slot.width + columns - _total(shown)
        for limit in (None, *range(room, before, -1)):
            slot.limit = limit
            if _total(shown) <= columns:
                break
        else:
            slot.limit = before


def _cut_headings(shown: list[_Slot]) -> list[str]:
    """Their headings, cut in the middle, or where they differ: two that are cut alike would be mistaken."""
    whole = [slot.column.heading for slot in shown]
    headings = [cut(heading, slot.width, "both") for heading, slot in zip(whole, shown, strict=True)]
    changed = [i for i, heading in enumerate(headings) if heading != whole[i]]
    least = min((shown[i].width for i in changed), default=0)
    alike: dict[str, list[int]] = {}
    for i in changed:
        alike.setdefault(cut(whole[i], least, "both"), []).append(i)
    for group in alike.values():
        common = len(os.path.commonprefix([whole[i] for i in group]))
        for i in group if len(group) > 1 and common > 2 else ():
            headings[i] = cut(ELLIPSIS + whole[i][common - 2 :], shown[i].width)
    return headings
