"""The parameters of many runs, compared by value, whatever they are."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cox.errors import ColumnNotFoundError, CompareError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

#: The column that tells the runs apart; it names the run and is no parameter.
EXP_ID = "exp_id"

_MISSING = ("missing",)
_NAN = ("nan",)


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
        return None if identity(value) in (_MISSING, _NAN) else value

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
        """The values that some parameters have, sorted, each with the runs that share them."""
        found: dict[Hashable, tuple[list[Any], list[str]]] = {}
        for run in runs:
            values = [self.value(run, name) for name in names]
            found.setdefault(tuple(map(identity, values)), (values, []))[1].append(run)
        return sorted(found.values(), key=lambda group: [order(value) for value in group[0]])

    def refuse_mixed(
        self, groups: Mapping[str, Sequence[str]], allowed: Iterable[str], *, apart: str = "by"
    ) -> None:
        """See that the runs of each group differ in nothing but the allowed parameters.

        Args:
            groups: Runs that are about to be averaged, by what to call the group, such as "lr=0.1".
            allowed: The parameters in which they may differ.
            apart: The argument that tells groups apart, for the error.

        Raises:
            CompareError: They do; names the parameters, some values, and what can be done.
        """
        others = [name for name in self.names if name not in set(allowed)]
        found = {
            group: differing for group, runs in groups.items() if (differing := self._differing(runs, others))
        }
        if not found:
            return
        group, differing = next(iter(found.items()))
        told = "; ".join(f"{name!r}: {_some(values)}" for name, values in differing.items())
        raise CompareError(
            f"runs that differ in {told} would be averaged in the group {group} ({len(found)} of "
            f"{len(groups)} groups are mixed). Add them to {apart}=… to tell such runs apart, name them in "
            "over=… if they are what is averaged over, or pass mixed=True"
        )

    def _differing(self, runs: Sequence[str], names: Sequence[str]) -> dict[str, list[Any]]:
        found = {}
        for name in names:
            values = {identity(value): value for value in (self.value(run, name) for run in runs)}
            if len(values) > 1:
                found[name] = sorted(values.values(), key=order)
        return found


def identity(value: Any) -> Hashable:
    """A key that two values share if they are the same.

    Numbers, text and bytes are compared as such, but True is not 1. Lists, tuples and arrays are their items,
    dicts and sets theirs in any order. NaN is NaN, and all that is missing is the same. The rest is its repr.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # without importing pandas
        return _MISSING
    if isinstance(value, (bool, int, float, complex, str, bytes)):
        return _NAN if value != value else (isinstance(value, bool), value)
    if isinstance(value, Mapping):
        return "mapping", frozenset((identity(name), identity(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return "sequence", tuple(map(identity, value))
    if isinstance(value, (set, frozenset)):
        return "set", frozenset(map(identity, value))
    return type(value).__name__, repr(value)


def is_missing(value: Any) -> bool:
    """Whether a cell holds None or pandas.NA; NaN is a value."""
    return identity(value) == _MISSING


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, and no bool."""
    if isinstance(value, np.generic):
        value = value.item()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def order(value: Any) -> tuple[int, Any]:
    """A key to sort values of any types: numbers, text, the rest by its repr, what is missing or NaN."""
    if isinstance(value, np.generic):
        value = value.item()
    if identity(value) in (_MISSING, _NAN):
        return 3, 0
    if isinstance(value, (bool, int, float)):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, repr(value))


def not_found(what: str, name: str, known: Sequence[str]) -> ColumnNotFoundError:
    """The error for a name that is not there."""
    there = f"there are {sorted(known)}" if known else "there are none"
    return ColumnNotFoundError(f"no {what} {name!r}; {there}{did_you_mean(str(name), known)}")


def shortened(text: str, most: int) -> str:
    """A text that is too long, without its middle: names of runs tend to differ at both ends."""
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def _some(values: Sequence[Any], most: int = 4) -> str:
    told = ", ".join(shortened(repr(value), 40) for value in values[:most])
    return told + (f", … ({len(values)} values)" if len(values) > most else "")
