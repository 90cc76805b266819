"""Which column of a table counts its steps: one answer for curves, plots and rewinding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

#: The names that count steps, the likeliest first. A table counts by the first of them whose numbers grow; a
#: table without such a column counts by row.
STEP_COLUMNS = ("step", "global_step", "iteration", "epoch")
#: What the number of a row within its run is called, where no column has that name.
ROW = "row"
#: Steps are from -2**63 on, and below this.
LIMIT = 2.0**63


def candidates(names: Iterable[str]) -> list[str]:
    """The columns that may count the steps of a table, the likeliest first."""
    known = set(names)
    return [name for name in STEP_COLUMNS if name in known]


def are_steps(values: Array, missing: Array | None = None) -> Array:
    """Which numbers can be steps: those that are there, finite, and not beyond all integers.

    Args:
        values: Of shape (nrows,), as float64.
        missing: Which of them are missing, of the same shape.
    """
    import numpy as np

    known: Array = np.isfinite(values) & (np.abs(values) < LIMIT)
    return known if missing is None else known & ~missing


def counting(
    names: Iterable[str], read: Callable[[str], tuple[Array, Array | None]], parts: Sequence[Array]
) -> str | None:
    """Return the first of some columns that counts steps; None if none does.

    Args:
        names: The columns; see `candidates`.
        read: Returns the values of a column as float64, and which are missing, both of shape (nrows,).
        parts: As for `counts`.
    """
    for name in names:
        values, missing = read(name)
        if counts(values, are_steps(values, missing), parts):
            return name
    return None


def counts(values: Array, known: Array, parts: Iterable[Array]) -> bool:
    """Whether a column counts steps: whole numbers that grow from each row to the next of its part.

    Args:
        values: Of shape (nrows,), as float64.
        known: Which of them can be steps, of the same shape; see `are_steps`.
        parts: The positions of the rows of each run, or rank, in order of writing.
    """
    import numpy as np

    if not known.any() or (values[known] % 1).any():
        return False
    return all((np.diff(values[rows][known[rows]]) > 0).all() for rows in parts)
