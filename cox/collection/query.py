"""What is asked of the runs of a reader, as one value that goes down from its methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from cox.predicates import Predicate

#: Which runs, by their names.
ExpFilter: TypeAlias = Callable[[str], Any]
#: Which runs, by their parameters: a condition, or values, or a function of all parameters.
ParamFilter: TypeAlias = "str | Mapping[str, Any] | Callable[[dict[str, Any]], Any]"


def as_list(names: str | Iterable[str]) -> list[str]:
    """Names that may be given as one alone."""
    return [names] if isinstance(names, str) else list(names)


@dataclass(frozen=True, slots=True)
class Query:
    """Which runs, and which rows and columns of a table. `CollectionReader` documents the first four.

    Attributes:
        columns: The columns, in this order; None for all.
        where: The condition on rows.
        params: The condition on runs.
        exp_filter: The condition on the names of runs.
        skip: Whether to leave out, with a warning, runs that cannot be read.
    """

    columns: Sequence[str] | None = None
    where: str | None = None
    params: ParamFilter | None = None
    exp_filter: ExpFilter | None = None
    skip: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            object.__setattr__(self, "columns", [self.columns])

    def predicate(self) -> Predicate | None:
        """Return the condition on rows.

        Raises:
            PredicateError: It cannot be understood.
        """
        from cox import predicates

        return None if self.where is None else predicates.parse(self.where)

    def columns_to_read(self, predicate: Predicate | None) -> frozenset[str] | None:
        """Return the columns that are wanted and those that the condition mentions; None for all."""
        if self.columns is None:
            return None
        return frozenset(self.columns).union(predicate.names if predicate is not None else ())
