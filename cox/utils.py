"""Upstream's helpers, under upstream's names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cox.errors import DamagedError
from cox.objects import codec
from cox.objects.signing import NOWHERE
from cox.objects.trust import TEXT, Trust
from cox.schema import infer as schema_from_dict
from cox.storage import layout

__all__ = [
    "Parameters",
    "consistent",
    "has_tensorboard",
    "mkdirp",
    "obj_to_string",
    "override_json",
    "schema_from_dict",
    "string_to_obj",
]

T = TypeVar("T")


class Parameters:
    """A dictionary of parameters as attributes: any case, and None for what is not there.

    Args:
        params: Names to values; kept, not copied.

    Raises:
        ValueError: Two names differ in case only.

    Example:
        >>> Parameters({"lr": 0.1}).LR
        0.1
    """

    params: dict[str, Any]

    def __init__(self, params: dict[str, Any]) -> None:
        lowered: dict[str, str] = {}
        for name in params:
            if (other := lowered.setdefault(name.lower(), name)) != name:
                raise ValueError(f"the parameters {other!r} and {name!r} differ in case only")
        super().__setattr__("params", params)

    def as_dict(self) -> dict[str, Any]:
        """The dictionary itself."""
        return self.params

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "params":  # copy and pickle ask for these before there is a dict
            raise AttributeError(name)
        params = self.params
        return params[name] if name in params else params.get(self._find(name))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "params":
            super().__setattr__(name, value)
        else:
            self.params[self._find(name)] = value

    def __delattr__(self, name: str) -> None:
        del self.params[self._find(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)

    def __contains__(self, name: object) -> bool:
        return name in self.params

    def __getstate__(self) -> dict[str, Any]:
        return self.params

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setattr__("params", state)

    def __str__(self) -> str:
        return json.dumps(self.params, indent=2, default=str)

    __repr__ = __str__

    def _find(self, name: str) -> str:
        """The name as the dictionary has it, or in lower case if it has none."""
        lowered = name.lower()
        if lowered in self.params:
            return lowered
        return next((known for known in self.params if known.lower() == lowered), lowered)


def override_json(
    args: Parameters, json_path: str | os.PathLike[str], check_consistency: bool = False
) -> Parameters:
    """Fill what is None in `args` from a JSON file.

    Args:
        args: The parameters; those that are not None win over the file.
        json_path: A file with a JSON object.
        check_consistency: Whether both must have the same names (`config_path` aside).

    Returns:
        New parameters.

    Raises:
        ValueError: The names differ, and `check_consistency` is set.
    """
    loaded: dict[str, Any] = json.loads(Path(json_path).read_text(encoding="utf-8"))
    given = args.as_dict()
    if check_consistency:
        unknown = sorted(name for name in loaded if name not in given)
        absent = sorted(name for name in given if name not in loaded and name != "config_path")
        if unknown or absent:
            raise ValueError(
                f"{os.fspath(json_path)}: in the file but not in the arguments: {unknown}; "
                f"in the arguments but not in the file: {absent}"
            )
    merged = {**loaded, **{name: value for name, value in given.items() if value is not None}}
    for name in given:
        merged.setdefault(name, None)
    return Parameters(merged)


def consistent(old: T | None, new: T) -> T:
    """`new`, if there is no `old` or it is equal.

    Raises:
        ValueError: They differ.
    """
    if old is not None and old != new:
        raise ValueError(f"{new!r} is not the {old!r} that was there before")
    return new if old is None else old


def mkdirp(x: str | os.PathLike[str], should_msg: bool = False) -> None:
    """Make a directory and its parents; harmless if it is there.

    Args:
        x: The directory.
        should_msg: Kept for old programs; what cannot be made is an error either way.
    """
    Path(x).mkdir(parents=True, exist_ok=True)


def _clean_dict(d: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose 0-d arrays and tensors in columns of float, int and bool are plain numbers.

    Upstream's own, which programs that subclass its Store import.

    Raises:
        KeyError: A column is not in the schema.
    """
    return {name: _plain_number(value, schema[name]) for name, value in d.items()}


def _plain_number(value: Any, given: Any) -> Any:
    is_scalar = given in (float, int, bool) and getattr(value, "shape", None) == () and hasattr(value, "item")
    return given(value.item()) if is_scalar else value


def has_tensorboard(dirname: str | os.PathLike[str]) -> bool:
    """Whether a directory has a directory of TensorBoard event files."""
    return Path(dirname, layout.TENSORBOARD_DIR).is_dir()


def obj_to_string(obj: Any) -> str:
    """An object as the text of an OBJECT cell."""
    return codec.to_text(obj, NOWHERE)


def string_to_obj(s: Any, *, allow_pickle: bool = False) -> Any:
    """The object of an OBJECT cell; None for an empty one, and anything else that is no such text unchanged.

    Raises:
        UntrustedObjectError: It is not plain data, and nobody vouched for it.
    """
    if s is None or s == "":
        return None
    if not isinstance(s, str):
        return s
    try:
        return codec.from_text(s, Trust(allow_pickle=allow_pickle), TEXT)
    except DamagedError:
        return s
