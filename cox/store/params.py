"""Parameters as a program has them (dicts, Namespaces, configuration objects), as one flat mapping.

And what a run has of them already, with which those that are logged again are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cox import metadata
from cox.errors import ParametersError
from cox.schema import Column, as_mapping, shown
from cox.storage import layout
from cox.store import repeats

if TYPE_CHECKING:
    from cox.store.cells import Cells
    from cox.store.open_run import OpenRun


def flat(params: Any) -> dict[str, Any]:
    """Names to values, where those of nested parameters are joined with dots: `{"model.width": 64}`.

    Args:
        params: A mapping, a Namespace, a dataclass, `cox.utils.Parameters`, or a configuration of pydantic,
            OmegaConf or ml_collections. What is nested in it may be any of these, too.

    Raises:
        ParametersError: It has no names and values, or two of them get the same name.

    Example:
        >>> flat({"lr": 0.1, "model": {"width": 64}})
        {'lr': 0.1, 'model.width': 64}
    """
    named = _named(params)
    if named is None:
        raise ParametersError(
            f"parameters are a mapping of names to values, a Namespace or a dataclass, not {shown(params)}"
        )
    values: dict[str, Any] = {}
    for name, value in _walk(named, ""):
        if name in values:
            raise ParametersError(f"there are two parameters {name!r}: one is nested; rename one of them")
        values[name] = value
    return values


def _walk(named: Mapping[Any, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in named.items():
        name = f"{before}{key}"
        inner = _named(value)
        if inner:
            yield from _walk(inner, f"{name}.")
        else:
            yield name, _plain(value) if inner is None else {}


def _named(value: Any) -> dict[Any, Any] | None:
    """Names and values of something that has them; None for a plain value."""
    dump = getattr(value, "model_dump", None)  # pydantic's
    if callable(dump) and not isinstance(value, type):
        return dict(dump())
    if getattr(value, "dtype", None) is not None:  # a Series is a value, not a set of parameters
        return None
    return as_mapping(value)


def _plain(value: Any) -> Any:
    """A list of OmegaConf as Python's own, so that it is read back without OmegaConf."""
    if type(value).__name__ != "ListConfig":
        return value
    return [_plain(one) if (inner := _named(one)) is None else flat(inner) for one in value]


def first_row(run: OpenRun) -> dict[str, tuple[Column, Any]] | None:
    """The columns and cells of the run's parameters; None if it has none yet."""
    now = run.snapshot(tables=[layout.METADATA_TABLE])
    table = now.tables.get(layout.METADATA_TABLE)
    if table is None or not table.nrows:
        return None
    return metadata.first_row(table, is_ranked=now.has_ranks(table.name))


def refuse_others(
    run: OpenRun, cells: Cells, first: Mapping[str, tuple[Column, Any]], values: Mapping[str, Any]
) -> None:
    """Refuse parameters other than those that the run has.

    Args:
        run: The run.
        cells: What makes cells of its table of parameters.
        first: The columns and cells of its parameters.
        values: Names to values, as they are logged again.

    Raises:
        ParametersError: Says which differ.
    """
    changes = repeats.parameter_changes(
        first,
        values,
        encode=lambda name, value: cells.of({name: value})[name],
        decode=lambda column, cell: metadata.decoded(
            column, cell, run.layout, run.trust, layout.METADATA_TABLE
        ),
    )
    if changes:
        raise ParametersError(
            f"run {run.path} has other parameters: {'; '.join(changes)}; go on with those of the run, "
            "all in one call, or begin a run of another name"
        )
