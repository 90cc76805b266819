"""Columns of times: their cells are text, and what calculates with them has microseconds since 1970.

A cell is `2026-01-02T03:04:05.000006`, with a `Z` at its end if the time has a zone, and then it is in UTC.
So each cell says by itself which of the two it is, and nothing takes one for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cox.errors import DamagedError

Array = npt.NDArray[Any]

#: How pandas holds them. A missing one is NaT.
DTYPE = np.dtype("<M8[us]")
#: How a field of the store file does: before its version 3, pandas takes whatever is there for nanoseconds.
STORED = np.dtype("<M8[ns]")
_NAIVE, _ZONED = 26, 27
_MARKS = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":", 19: "."}
_DIGITS = [i for i in range(_NAIVE) if i not in _MARKS]
_FIRST_STORED, _LAST_STORED = (
    np.datetime64(-(2**63) // 1000 + 1, "us"),
    np.datetime64((2**63 - 1) // 1000, "us"),
)
_FIRST, _LAST = np.datetime64("0001-01-01T00:00:00", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")


def decode(texts: Array, missing: Array | None) -> tuple[Array, Array]:
    """Turn cells into numbers.

    Args:
        texts: The cells, of shape (nrows,), as str objects or UTF-8 bytes.
        missing: Which of them are missing, of the same shape; None for none.

    Returns:
        The times as datetime64[us], NaT where they are missing, and whether each has a zone.

    Raises:
        ValueError: One is not such a text.
    """
    gone = np.zeros(len(texts), dtype=np.bool_) if missing is None else missing
    raw = _fixed(texts, gone).view(np.uint8).reshape(len(texts), _ZONED)
    zoned = raw[:, -1] == ord("Z")
    digits = raw[:, _DIGITS]
    is_one = zoned | (raw[:, -1] == 0)
    is_one &= ((digits >= ord("0")) & (digits <= ord("9"))).all(axis=1)
    for i, mark in _MARKS.items():
        is_one &= raw[:, i] == ord(mark)
    if not (is_one | gone).all():
        raise ValueError("not a time as docs/FORMAT.md has it")
    times = np.full(len(texts), "NaT", dtype=DTYPE)
    there = np.ascontiguousarray(raw[~gone, :_NAIVE]).view(f"S{_NAIVE}").reshape(-1)
    times[~gone] = there.astype(DTYPE)
    if (times < _FIRST).any():
        raise ValueError("there is no year 0")
    return times, zoned & ~gone


def encode(times: Array, *, zoned: bool) -> Array:
    """Undo `decode` for times that are all alike: cells as UTF-8 bytes; of NaT they are empty.

    Raises:
        DamagedError: One is not in the years 1 to 9999.
    """
    times = times.astype(DTYPE, copy=False)
    gone = np.isnat(times)
    if ((times < _FIRST) | (times > _LAST)).any():
        raise DamagedError("a time that is not in the years 1 to 9999")
    texts = np.zeros(len(times), dtype=f"S{_ZONED if zoned else _NAIVE}")
    if gone.all():
        return texts
    texts[~gone] = np.datetime_as_string(times[~gone], unit="us").astype(f"S{_NAIVE}")
    if zoned:
        texts.view(np.uint8).reshape(len(texts), _ZONED)[~gone, -1] = ord("Z")
    return texts


def zone_of(parts: Sequence[tuple[Array, Array | None]]) -> bool | None:
    """Whether all times of a column have a zone, or none has.

    None if some have, a cell is not a time, or one is out of the years 1678 to 2261, which `STORED` has.

    Args:
        parts: Cells and which of them are missing, as for `decode`.
    """
    found: set[bool] = set()
    for texts, missing in parts:
        try:
            times, zoned = decode(texts, missing)
        except ValueError:
            return None
        if ((times < _FIRST_STORED) | (times > _LAST_STORED)).any():
            return None
        found.update(np.unique(zoned[~np.isnat(times)]).tolist())
    return None if len(found) > 1 else found == {True}


def _fixed(texts: Array, gone: Array) -> Array:
    """The cells as bytes of the width of the longest such text, the missing ones empty."""
    if texts.dtype.kind == "S":
        if texts.dtype.itemsize > _ZONED and np.char.str_len(texts[~gone]).max(initial=0) > _ZONED:
            raise ValueError("too long for a time")
        return np.where(gone, b"", texts).astype(f"S{_ZONED}")
    cells = ["" if is_gone else text for text, is_gone in zip(texts.tolist(), gone.tolist(), strict=True)]
    if any(len(text) not in (0, _NAIVE, _ZONED) for text in cells):
        raise ValueError("too long or too short for a time")
    return np.array([text.encode() for text in cells], dtype=f"S{_ZONED}")
