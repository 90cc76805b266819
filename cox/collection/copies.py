"""Copies of a run beside it: a backup, or a dataset and its folder. Each looks like another run."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from cox.analysis.parameters import identity
from cox.collection.naming import quoted
from cox.collection.runs import Runs
from cox.errors import CoxError, in_python
from cox.storage import runinfo

#: How many runs that are there more than once a warning names, and how many copies of each.
_MOST_NAMED = 3


def warn_of_copies(runs: Runs, parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Say which runs are there more than once: an interval over a run and its copy is too narrow.

    Args:
        runs: All runs.
        parameters: Those that count, and the parameters of each. The ids of those that share them are read.
    """
    found = [
        copies
        for alike in _grouped((_key(values), name) for name, values in parameters.items())
        for copies in _grouped((_id_of(runs, name), name) for name in alike)
    ]
    if not found:
        return
    told = "; ".join(" = ".join(map(quoted, copies[:_MOST_NAMED])) for copies in found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
    remedy = in_python(", or name those that count with exp_filter=…")
    runs.warn(
        f"runs are there more than once, and each copy counts: {told}{more}; read the folders without the "
        f"copies{remedy}"
    )


def _grouped(keyed: Iterable[tuple[Hashable, str]]) -> list[list[str]]:
    """The names that share a key, where several do; None is no key."""
    groups: dict[Hashable, list[str]] = {}
    for key, name in keyed:
        if key is not None:
            groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _key(values: Mapping[str, Any]) -> Hashable:
    return frozenset((name, identity(value)) for name, value in values.items())


def _id_of(runs: Runs, name: str) -> str | None:
    """The id of a run; None if it has none, or it cannot be told."""
    archive = runs.archive(name)
    if archive is not None:
        return archive.entry(runs.place(name)[1]).id
    try:
        return runinfo.run_id(runs.layout(name))
    except (OSError, CoxError):
        return None
