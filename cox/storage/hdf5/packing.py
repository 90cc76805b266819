"""Chunks of rows as HDF5's own filters would make them: shuffle, deflate, fletcher32.

HDF5 compresses with zlib, which takes most of the time of a fold. Here ISA-L does it, ten times as fast,
where there is a build of it; what it makes is read by every zlib.
"""

from __future__ import annotations

import struct
import zlib

import h5py
import numpy as np

from cox.storage.columns import Array

_WORDS = 1 << 20
#: The level that HDF5 notes in the file. It means nothing to who reads it.
_ZLIB_LEVEL = 3

try:
    from isal import isal_zlib
except ImportError:  # a machine that it is not built for: see the dependencies in pyproject.toml
    _compress, _level = zlib.compress, _ZLIB_LEVEL
else:
    _compress, _level = isal_zlib.compress, 1


def declare_filters(how: h5py.h5p.PropDCID) -> None:
    """Have a dataset to be created say that its chunks are what `pack` makes."""
    how.set_shuffle()
    how.set_deflate(_ZLIB_LEVEL)
    how.set_fletcher32()


def pack(rows: Array) -> bytes:
    """The stored bytes of one whole chunk.

    Args:
        rows: All rows of the chunk, in the dtype of the file, contiguous.
    """
    shuffled = rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize).T
    packed = _compress(np.ascontiguousarray(shuffled).data, _level)
    return packed + struct.pack("<I", fletcher32(packed))


def fletcher32(data: bytes) -> int:
    """Fletcher's checksum as HDF5 has it: of big-endian words of 16 bits, an odd byte being the high half."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), dtype=">u2")
    low = high = 0
    for start in range(0, len(words), _WORDS):  # so many that no sum of them overflows
        some = words[start : start + _WORDS].astype(np.uint64)
        high += low * len(some) + int(np.dot(some, np.arange(len(some), 0, -1, dtype=np.uint64)))
        low += int(some.sum())
    return _reduced(high) << 16 | _reduced(low)


def _reduced(total: int) -> int:
    """The sum modulo 65535, of whose two zeros only a sum of nothing gives the first."""
    return (total - 1) % 65535 + 1 if total else 0
