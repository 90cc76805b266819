"""TensorBoard's event files, record by record: which of their bytes are as they were written.

A record is the length of its data (u64, little-endian), a checksum of that, the data, and a checksum of
the data; see `tensorflow/core/lib/io/record_writer.h`. TensorBoard itself reads a file up to the first
record that is not whole, and shows nothing of what comes after it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import crc32c

_HEAD = struct.Struct("<QI")
_TAIL = struct.Struct("<I")
#: What the upper bytes of a record's length are, for one below 16 MB: how the next one is looked for.
_SHORT = bytes(5)


@dataclass(slots=True)
class Records:
    """What an event file consists of.

    Attributes:
        good: Where whole records begin and end.
        bad: The same of bytes that are none.
        torn: How many bytes of an unfinished record are at the end.
    """

    good: list[tuple[int, int]] = field(default_factory=list)
    bad: list[tuple[int, int]] = field(default_factory=list)
    torn: int = 0


def record(content: bytes) -> bytes:
    """The record that holds some data."""
    length = struct.pack("<Q", len(content))
    head = length + _TAIL.pack(_masked_crc_of_length(length))
    return b"".join((head, content, _TAIL.pack(_masked_crc(content))))


def content(data: bytes, start: int, stop: int) -> bytes:
    """The data of a whole record."""
    return data[start + _HEAD.size : stop - _TAIL.size]


def contents(data: bytes) -> Iterator[bytes]:
    """The data of all whole records in the bytes of an event file."""
    for start, stop in scan(data).good:
        yield content(data, start, stop)


def scan(data: bytes) -> Records:
    """Find the records in the bytes of an event file."""
    found = Records()
    position, end = 0, len(data)
    while position < end:
        stop = _end_of_record(data, position)
        if stop is not None and stop > end or end - position < _HEAD.size:
            found.torn = end - position
            break
        if stop is None:
            stop = _next_record(data, position + 1)
            found.bad.append((position, stop))
        elif _is_sound(data, position, stop):
            found.good.append((position, stop))
        else:
            found.bad.append((position, stop))
        position = stop
    return found


def _end_of_record(data: bytes, position: int) -> int | None:
    """Where a record ends by its head, which may be behind the last byte; None if that is no head."""
    if position + _HEAD.size > len(data):
        return None
    length, checksum = _HEAD.unpack_from(data, position)
    if _masked_crc_of_length(data[position : position + 8]) != checksum:
        return None
    return position + _HEAD.size + int(length) + _TAIL.size


def _is_sound(data: bytes, start: int, stop: int) -> bool:
    (checksum,) = _TAIL.unpack_from(data, stop - _TAIL.size)
    return _masked_crc(data[start + _HEAD.size : stop - _TAIL.size]) == int(checksum)


def _next_record(data: bytes, position: int) -> int:
    """Where the next whole record begins, or the end."""
    while True:
        at = data.find(_SHORT, position + 3)
        if at < 0:
            return len(data)
        position = at - 3
        stop = _end_of_record(data, position)
        if stop is not None and stop <= len(data) and _is_sound(data, position, stop):
            return position
        position += 1


@lru_cache(maxsize=1024)
def _masked_crc_of_length(length: bytes) -> int:
    return _masked_crc(length)


def _masked_crc(data: bytes) -> int:
    """CRC-32C, turned and shifted as TensorFlow does it."""
    crc = int(crc32c.crc32c(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
