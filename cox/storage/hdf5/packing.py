"""Chunks of rows as HDF5's own filters make them, and back: shuffle, deflate, fletcher32.

HDF5 compresses with zlib, which takes most of the time of a fold. Here ISA-L does it, ten times as fast,
where there is a build of it; what it makes is read by every zlib.

Chunks are also decoded here and not by HDF5, which trusts their lengths: if a chunk unpacks to fewer bytes
than its rows need, HDF5 reads on in memory that does not belong to it, up to a crash of the process.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from cox.errors import DamagedError
from cox.storage.columns import Array

_WORDS = 1 << 20
#: The level that HDF5 notes in the file. It means nothing to who reads it.
_ZLIB_LEVEL = 3

_inflater: Callable[[], Any]

try:
    from isal import isal_zlib
except ImportError:  # a machine that it is not built for: see the dependencies in pyproject.toml
    _compress, _level, _inflater = zlib.compress, _ZLIB_LEVEL, zlib.decompressobj
else:
    _compress, _level, _inflater = isal_zlib.compress, 1, isal_zlib.decompressobj

#: The filters that can be undone; HDF5 numbers them so.
DEFLATE, SHUFFLE, FLETCHER32 = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32


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


def unpack(stored: bytes, filters: Sequence[int], rows: int, itemsize: int) -> Array:
    """Undo the filters of one chunk.

    Args:
        stored: Its bytes in the file.
        filters: The numbers of the filters that it went through, in this order.
        rows: How many rows a chunk has.
        itemsize: Bytes of a row.

    Returns:
        The bytes of the rows, of shape (rows, itemsize).

    Raises:
        DamagedError: These are not the bytes of such a chunk.
    """
    size, shuffled = rows * itemsize, False
    for number in reversed(filters):
        if number == FLETCHER32:
            stored, checksum = stored[:-4], stored[-4:]
            if fletcher32(stored) != int.from_bytes(checksum, "little"):
                raise DamagedError("a chunk does not have the checksum that it should")
        elif number == DEFLATE:
            stored = _inflated(stored, size)
        elif number == SHUFFLE:
            shuffled = True
        else:
            raise DamagedError(f"packed by the HDF5 filter {number}: cox reads gzip, shuffle and fletcher32")
    if len(stored) != size:
        raise DamagedError(f"a chunk of {size} bytes unpacks to {len(stored)}")
    data = np.frombuffer(stored, dtype=np.uint8)
    return data.reshape(itemsize, rows).T if shuffled else data.reshape(rows, itemsize)


def _inflated(packed: bytes, most: int) -> bytes:
    """Undo deflate; no more than a few bytes beyond `most` are made, whatever the chunk would come to."""
    try:
        data: bytes = _inflater().decompress(packed, most + 8)  # a checksum may have been put before deflate
    except Exception as error:  # isal's error is of a class of its own
        raise DamagedError(f"a chunk cannot be unpacked: {error}") from error
    return data


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
