"""numpy's arrays, scalars and dtypes out of pickles, with every claim checked.

numpy believes what a pickle tells it of memory: told that bytes are objects, it takes them for pointers.
So nothing of numpy is called from a pickle. What a pickle says is collected in stand-ins, and made
into the real thing from a known dtype and exactly as many bytes as that needs.
"""

from __future__ import annotations

import math
import re
from typing import Any, cast

import numpy as np

from cox.safe_pickle.refusal import NotPlainError

_SPEC = re.compile(
    r"[|<>=]?(?:[?bBhHiIlLqQefdgFDGO]|b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|O[48]"
    r"|[SUV]\d{0,9}|[Mm]8(?:\[[0-9A-Za-z]{1,20}\])?)"
)
_ALIGNED_STRUCT = 0x80


class Dtype:
    """A dtype as a pickle describes it: a short text, and a state that says the rest."""

    __slots__ = ("_made", "_spec", "_state")

    def __init__(self, spec: Any, align: Any = False, copy: Any = False) -> None:
        self._spec = spec
        self._state: tuple[Any, ...] = ()
        self._made: np.dtype[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if self._made is not None or self._state or not isinstance(state, tuple):
            raise NotPlainError("a dtype that changes")
        self._state = state

    def make(self) -> np.dtype[Any]:
        """The dtype."""
        if self._made is None:
            self._made = self._from_state() if len(self._state) >= 6 else _simple(self._spec)
        return self._made

    def _from_state(self) -> np.dtype[Any]:
        order, subarray, names, fields, itemsize = self._state[1:6]
        flags = self._state[7] if len(self._state) > 7 else 0
        if subarray is not None:
            base, shape = subarray
            made: np.dtype[Any] = np.dtype((dtype_of(base), shape))
            return made
        if names is not None:
            if any(len(fields[name]) != 2 for name in names):
                raise NotPlainError("a dtype with titles")
            described: Any = {
                "names": list(names),
                "formats": [dtype_of(fields[name][0]) for name in names],
                "offsets": [int(fields[name][1]) for name in names],
                "itemsize": int(itemsize),
            }
            structured: np.dtype[Any] = np.dtype(described, align=bool(flags & _ALIGNED_STRUCT))
            return structured
        made = _simple(self._spec)
        if made.kind in "Mm" and len(self._state) > 8:
            unit, count = self._state[8][1][:2]
            made = (
                _simple(f"{made.kind}8[{int(count)}{_as_text(unit)}]")
                if _as_text(unit) != "generic"
                else made
            )
        if order in ("<", ">"):
            made = made.newbyteorder(order)
        if itemsize not in (-1, made.itemsize):
            raise NotPlainError(f"a dtype {made} of {itemsize!r} bytes")
        return made


class Array:
    """An array as a pickle describes it: empty at first, then a state with everything."""

    __slots__ = ("_made", "_state")

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()
        self._made: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if self._state or not isinstance(state, tuple) or len(state) not in (4, 5):
            raise NotPlainError("an array that changes")
        self._state = state[-4:]

    def make(self, finish: Any) -> np.ndarray[Any, Any]:
        """The array; `finish` makes its cells, where these are objects."""
        if self._made is None:
            if not self._state:
                raise NotPlainError("an array without a state")
            shape, dtype, fortran, raw = self._state
            order = "F" if fortran else "C"
            self._made = _filled(raw, dtype_of(dtype), _shape(shape), order, finish)
        return self._made


def dtype_of(given: Any) -> np.dtype[Any]:
    """The dtype that a stand-in means."""
    if not isinstance(given, Dtype):
        raise NotPlainError(f"{given!r} in the place of a dtype")
    return given.make()


def from_buffer(raw: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray[Any, Any]:
    """What numpy's `_frombuffer` makes: an array over bytes."""
    kind, dims = dtype_of(dtype), _shape(shape)
    _check_bytes(raw, kind, dims)
    if not math.prod(dims) or not kind.itemsize:
        return np.zeros(dims, kind, order="F" if order == "F" else "C")
    array: Any = np.frombuffer(raw, kind)
    if order == "K" and axis_order is not None:
        array = array.reshape(dims).transpose(tuple(int(axis) for axis in axis_order))
    else:
        array = array.reshape(dims, order="F" if order == "F" else "C")
    return cast("np.ndarray[Any, Any]", array)


def scalar(dtype: Any, raw: Any = b"") -> Any:
    """What numpy's `scalar` makes: one element."""
    kind = dtype_of(dtype)
    if isinstance(raw, Array):  # a record that holds objects comes as an array of itself
        made = raw.make(_made)
        if made.dtype != kind or made.shape:
            raise NotPlainError("a record that is another array")
        return made[()]
    return _filled([raw] if kind.hasobject else raw, kind, (), "C", _made)[()]


def _made(cell: Any) -> Any:
    """A cell of a record, which may be an array itself."""
    if isinstance(cell, tuple):
        return tuple(_made(part) for part in cell)
    if isinstance(cell, Array):
        return cell.make(_made)
    return cell.make() if isinstance(cell, Dtype) else cell


def _filled(
    raw: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any, finish: Any
) -> np.ndarray[Any, Any]:
    if dtype.hasobject:
        if not isinstance(raw, list) or len(raw) != math.prod(shape):
            raise NotPlainError(f"an array of {dtype} that is not given by its objects")
        cells: np.ndarray[Any, Any] = np.empty(len(raw), dtype)
        for at, cell in enumerate(raw):
            cells[at] = finish(cell)
        objects: np.ndarray[Any, Any] = cells.reshape(shape, order=order)
        return objects
    if isinstance(raw, str):
        raw = raw.encode("latin1")  # what Python 2 called bytes
    _check_bytes(raw, dtype, shape)
    if not raw:
        return np.zeros(shape, dtype, order)
    array: np.ndarray[Any, Any] = np.frombuffer(bytearray(raw), dtype)
    shaped: np.ndarray[Any, Any] = array.reshape(shape, order=order)
    return shaped


def _check_bytes(raw: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if dtype.hasobject or not isinstance(raw, (bytes, bytearray)):
        raise NotPlainError(f"an array of {dtype} over bytes")
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise NotPlainError(f"an array of shape {shape} and dtype {dtype} over {len(raw)} bytes")


def _shape(given: Any) -> tuple[int, ...]:
    if not isinstance(given, tuple) or not all(type(size) is int and size >= 0 for size in given):
        raise NotPlainError(f"the shape {given!r}")
    return given


def _simple(spec: Any) -> np.dtype[Any]:
    text = _as_text(spec)
    if not _SPEC.fullmatch(text):
        raise NotPlainError(f"the dtype {text[:80]!r}")
    return np.dtype(text)


def _as_text(given: Any) -> str:
    return given.decode("latin1") if isinstance(given, bytes) else str(given)
