"""Parameters as a program has them (dicts, Namespaces, configuration objects), as one flat mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cox.errors import ParametersError
from cox.schema import as_mapping, shown


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
