"""The operators of a condition on plain values."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from cox.predicates.operators import INT64, Operator
from cox.timestamps import time_of


class Scalars:
    """The operators on plain values. A value is None where it is missing or unknown."""

    def __init__(self, get: Callable[[str], Any]) -> None:
        self._get = get

    def load(self, name: str) -> Any:
        """The value of a name."""
        return unboxed(self._get(name))

    def truth(self, value: Any) -> Any:
        """A value as a condition."""
        if value is None or isinstance(value, bool):
            return value
        raise MismatchError("only a bool is a condition by itself; compare it with something", value)

    def missing(self, value: Any) -> Any:
        """Whether a value is missing."""
        return value is None

    def negate(self, value: Any) -> Any:
        """`not` of a condition."""
        return None if value is None else not value

    def all(self, values: Iterable[Any]) -> Any:
        """`and` of conditions."""
        met = set(values)
        return False if False in met else None if None in met else True

    def any(self, values: Iterable[Any]) -> Any:
        """`or` of conditions."""
        return self.negate(self.all(map(self.negate, values)))

    def among(self, value: Any, choices: list[Any]) -> Any:
        """Whether a value is one of some."""
        return self.any(
            self.missing(value) if choice is None else self.compare(operator.eq, value, choice)
            for choice in choices
        )

    def contains(self, part: str, whole: Any) -> Any:
        """Whether a text contains another."""
        if whole is None or isinstance(whole, str):
            return None if whole is None else part in whole
        raise MismatchError("only text contains text", part, whole)

    def compare(self, op: Operator, left: Any, right: Any) -> Any:
        """Whether `==` or an order holds between two values."""
        if left is None or right is None:
            return None
        kinds = is_number(left), is_number(right), isinstance(left, str), isinstance(right, str)
        if kinds in ((True, True, False, False), (False, False, True, True)):
            return op(left, right)
        if isinstance(left, datetime) or isinstance(right, datetime):
            times = _as_time(left), _as_time(right)
            if None not in times:
                return op(*_alike(left, right, *times))
            if op is not operator.eq:
                raise MismatchError("a time is compared with another, as '2026-01-02T03:04:05'", left, right)
            return False
        if op is operator.eq and any(kinds):
            return False
        raise MismatchError("these have no order" if any(kinds) else "these cannot be compared", left, right)

    def arithmetic(self, op: Operator, left: Any, right: Any) -> Any:
        """The result of a calculation."""
        if left is None or right is None:
            return None
        for cell in (left, right):
            if not is_number(cell) or isinstance(cell, bool):
                raise MismatchError("arithmetic is for numbers only", left, right)
        try:
            made = op(left, right)
        except ZeroDivisionError:
            return None
        except OverflowError:  # an int beyond every float
            return self.arithmetic(op, to_float(left), to_float(right))
        return made if isinstance(made, float) or made in INT64 else to_float(made)


class MismatchError(Exception):
    """An operator met cells that it is not for."""

    def __init__(self, reason: str, *cells: Any) -> None:
        super().__init__(reason)
        self.cells = cells


def _as_time(value: Any) -> Any:
    """A time as it is, or the one that a text tells; None for anything else."""
    if isinstance(value, str):
        return _told(value)
    return value if isinstance(value, datetime) else None


@functools.lru_cache(maxsize=64)  # the text of a condition is compared with the cell of each row
def _told(text: str) -> datetime | None:
    try:
        return time_of(text)
    except ValueError:
        return None


def _alike(left: Any, right: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Two times that can be compared: a text without a zone is in UTC where the other time has a zone.

    Raises:
        MismatchError: Only one has a zone.
    """
    if isinstance(left, str) and first.tzinfo is None and second.tzinfo is not None:
        first = first.replace(tzinfo=timezone.utc)
    if isinstance(right, str) and second.tzinfo is None and first.tzinfo is not None:
        second = second.replace(tzinfo=timezone.utc)
    if (first.tzinfo is None) != (second.tzinfo is None):
        raise MismatchError("only one of these times has a zone", left, right)
    return first, second


def unboxed(value: Any) -> Any:
    """Numpy's scalars as Python's own."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value


def is_number(value: Any) -> bool:
    """Whether a plain value is an int, a float or a bool."""
    return isinstance(value, (int, float))


def to_float(value: float) -> float:
    """The nearest float; infinite beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
