"""The parameters of many runs, compared by value, whatever they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from cox.errors import ColumnNotFoundError, CompareError, argument, unknown
from cox.objects.unreadable import Unreadable
from cox.schema import shown
from cox.storage.layout import EXP_ID

if TYPE_CHECKING:
    import pandas as pd

    from cox.metadata import RunParameters

_MISSING = ("missing",)
_NAN = ("nan",)
#: Classes beside numbers and text whose values are equal if, and only if, they mean the same.
_BY_VALUE = (date, time, timedelta, Fraction, PurePath, range)
#: Runs that an error names.
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is compared by its stored bytes, and shown as itself."""

    value: Any
    digest: str

    def __repr__(self) -> str:
        return shown(self.value)


def comparable(values: RunParameters) -> dict[str, Any]:
    """The parameters of a run for `Parameters`: what does not compare by value is `Stored`."""
    return {
        name: value if (digest := _digest(values, name, value)) is None else Stored(value, digest)
        for name, value in values.items()
    }


def uncovered(value: Any) -> Any:
    """A value as a user wants to see it: undoes `comparable`."""
    return value.value if isinstance(value, Stored) else value


def _digest(values: RunParameters, name: str, value: Any) -> str | None:
    return None if values.is_plain(name) or compares_by_value(value) else values.digest(name)


class Parameters:
    """What each run was started with.

    Args:
        params: A row for each run, with the run's name as index and a column for each parameter. A run
            without a row lacks all of them.
    """

    def __init__(self, params: pd.DataFrame) -> None:
        self.names = [str(name) for name in params.columns if name != EXP_ID]
        self.runs = [str(run) for run in params.index]
        self._cells = {name: dict(zip(self.runs, params[name].tolist(), strict=True)) for name in self.names}

    def value(self, run: str, name: str) -> Any:
        """A run's value of a parameter; None if it has none, and for NaN, as which a frame may hold None."""
        value = self._cells[name].get(run)
        return None if _is_nothing(value) else value

    def known(self, names: str | Sequence[str] | None) -> list[str]:
        """One name, several or none as a list, each once.

        Raises:
            ColumnNotFoundError: There is no parameter of one of these names; lists those there are.
        """
        wanted = [names] if isinstance(names, str) else list(names or ())
        for name in wanted:
            if name not in self.names:
                raise not_found("parameter", name, self.names)
        return list(dict.fromkeys(wanted))

    def groups(self, runs: Iterable[str], names: Sequence[str]) -> list[tuple[list[Any], list[str]]]:
        """The values that some parameters have, sorted, each with the runs that share them.

        An object that is compared by its stored bytes is a `Stored` among the values.
        """
        found: dict[Hashable, tuple[list[Any], list[str]]] = {}
        for run in runs:
            values = [self.value(run, name) for name in names]
            found.setdefault(tuple(map(identity, values)), (values, []))[1].append(run)
        return sorted(found.values(), key=lambda group: [order(value) for value in group[0]])

    def refuse_mixed(
        self, groups: Sequence[tuple[str, Sequence[str]]], allowed: Iterable[str], *, apart: str = "by"
    ) -> None:
        """See that the runs of each group differ in nothing but the allowed parameters.

        Args:
            groups: What to call each group, such as "lr=0.1", and its runs, which are about to be averaged.
            allowed: The parameters in which they may differ.
            apart: The argument that tells groups apart, for the error.

        Raises:
            CompareError: They do; names the parameters, some values, the runs in the way, and remedies.
        """
        others = [name for name in self.names if name not in set(allowed)]
        found = [(group, differing) for group, runs in groups if (differing := self._differing(runs, others))]
        if not found:
            return
        group, differing = found[0]
        told = "; ".join(
            f"{name!r}: {_some([value for value, _ in values])}" for name, values in differing.items()
        )
        raise CompareError(
            f"runs that differ in {told} would be averaged in the group {group} ({len(found)} of "
            f"{len(groups)} groups are mixed). {_in_the_way(differing)}Add them to {argument(apart)} to tell "
            f"such runs apart, name them in {argument('over')} if they are what is averaged over, or pass "
            f"{argument('mixed', True)}"
        )

    def _differing(self, runs: Sequence[str], names: Sequence[str]) -> dict[str, list[tuple[Any, list[str]]]]:
        """The parameters in which runs differ: each value, sorted, and the runs that have it."""
        found = {}
        for name in names:
            values = self.groups(runs, [name])
            if len(values) > 1:
                found[name] = [(value, own) for (value,), own in values]
        return found


def _in_the_way(differing: Mapping[str, Sequence[tuple[Any, Sequence[str]]]]) -> str:
    """A sentence that names the runs with the rarer values of the first parameter in which runs differ."""
    name, values = next(iter(differing.items()))
    usual = max(values, key=lambda entry: len(entry[1]))
    others = [(run, value) for value, runs in values if runs is not usual[1] for run in runs]
    named = ", ".join(f"{run} ({name}={_told(value)})" for run, value in others[:_MOST_NAMED])
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return f"Runs in the way: {named}{more}. "


def identity(value: Any) -> Hashable:
    """A key that two values share if they are the same.

    Numbers, text and bytes are compared as such, but True is not 1. Lists, tuples and arrays are their items,
    dicts and sets theirs in any order. NaN is NaN, and all that is missing is the same. Objects are compared
    by their stored bytes where these are known, else by class and attributes.
    """
    try:
        return _identity(value)
    except (RecursionError, TypeError):  # it contains itself, or claims to be what it is not
        return type(value).__qualname__, shown(value)


def compares_by_value(value: Any) -> bool:
    """Whether `identity` looks at nothing but the value."""
    value = _unboxed(value)
    if isinstance(value, Mapping):
        return all(compares_by_value(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(compares_by_value, value))
    if isinstance(value, Enum):
        return False
    return _is_missing(value) or isinstance(
        value, (bool, int, float, complex, str, bytes, Decimal, *_BY_VALUE)
    )


def _identity(value: Any) -> Hashable:
    value = _unboxed(value)
    if _is_missing(value):
        return _MISSING
    if isinstance(value, (Stored, Unreadable)):
        return "stored", value.digest
    if isinstance(value, Enum):
        return type(value).__module__, type(value).__qualname__, value.name
    if isinstance(value, (bool, int, float, complex, str, bytes)):
        return _NAN if value != value else (isinstance(value, bool), value)
    if isinstance(value, Decimal):
        return "Decimal", str(value)
    if isinstance(value, _BY_VALUE):
        return type(value).__name__, value
    if isinstance(value, Mapping):
        return "mapping", frozenset((_identity(name), _identity(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return "sequence", tuple(map(_identity, value))
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(map(_identity, value))
    kind = type(value).__module__, type(value).__qualname__
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict) and attributes:
        return kind, _identity(attributes)
    return kind, shown(value)


def _unboxed(value: Any) -> Any:
    """Scalars, arrays and tensors as Python's own numbers and lists."""
    if isinstance(value, (np.generic, np.ndarray)) or (hasattr(value, "tolist") and hasattr(value, "shape")):
        return value.tolist()
    return value


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # without importing pandas


def is_missing(value: Any) -> bool:
    """Whether a cell holds None or pandas.NA; NaN is a value."""
    return _is_missing(_unboxed(value))


def _is_nothing(value: Any) -> bool:
    """Whether a value is missing or NaN."""
    return is_missing(value) or identity(value) == _NAN


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, and no bool."""
    if isinstance(value, np.generic):
        value = value.item()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def order(value: Any) -> tuple[int, Any]:
    """A key to sort values of any types: numbers, text, the rest by its repr, what is missing or NaN."""
    if isinstance(value, np.generic):
        value = value.item()
    if _is_nothing(value):
        return 3, 0
    if isinstance(value, (bool, int, float)):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, shown(value))


def not_found(what: str, name: str, known: Sequence[str]) -> ColumnNotFoundError:
    """The error for a name that is not there."""
    return ColumnNotFoundError(unknown(f"there is no {what}", name, sorted(known)))


def named_runs(runs: Sequence[str]) -> str:
    """Some runs by name, for a message."""
    more = f" and {len(runs) - _MOST_NAMED} more" if len(runs) > _MOST_NAMED else ""
    return f"{'run' if len(runs) == 1 else 'runs'} {', '.join(runs[:_MOST_NAMED])}{more}"


def shortened(text: str, most: int) -> str:
    """A text that is too long, without its middle: names of runs tend to differ at both ends."""
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def _some(values: Sequence[Any], most: int = 4) -> str:
    told = ", ".join(map(_told, values[:most]))
    return told + (f", … ({len(values)} values)" if len(values) > most else "")


def _told(value: Any) -> str:
    return shortened(shown(value), 40)
