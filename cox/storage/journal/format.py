"""The format of a journal: its header, its records, and the bytes between them.

A journal is a header and records. A record is ::

    mark 2 bytes | length u32 | checksum u32 | payload (msgpack), `length` bytes

all little-endian. The checksum is CRC-32 of the payload, begun at the journal's salt: a random number
in the file's name, so that bytes which only look like a record (a journal logged as text, say) are none.
The header is `COXLOG`, a version, and a record that says which run the journal belongs to (`Header`).
Payloads are lists that begin with their kind and their sequence number, which counts the records of a
writer over all its journals without a gap. docs/FORMAT.md has every field.
"""

from __future__ import annotations

import struct
import zlib
from typing import Annotated, Any

import msgspec

VERSION = 2
MAGIC = b"COXLOG"
#: All of the header of a journal of version 1.
HEADER_1 = MAGIC + struct.pack("<H", 1)
PREFIX = MAGIC + struct.pack("<H", VERSION)
MARK = b"\xc0\xc5"

ROW, TABLE, REWIND, COLUMN = range(4)
_head = struct.Struct("<2sII")
HEAD_SIZE = _head.size
pack_head = _head.pack
unpack_head = _head.unpack_from
_decode = msgspec.msgpack.Decoder(list[Any]).decode

#: No record has this sequence number or a higher one; one that claims it is none.
MOST_RECORDS = 2**61


class Header(msgspec.Struct, frozen=True):
    """What a journal says of itself: a msgpack map. Fields that are not known here are ignored.

    Attributes:
        run: The id of the run.
        after: The journals of this writer that it continues, oldest first, each with its salt and the
            sequence number behind its last record; not all of a long history.
    """

    run: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    after: tuple[tuple[int, int], ...] = ()

    def to_bytes(self, salt: int) -> bytes:
        """The bytes that a journal of this salt begins with."""
        payload = msgspec.msgpack.encode(self)
        return PREFIX + pack_head(MARK, len(payload), zlib.crc32(payload, salt)) + payload


decode_header = msgspec.msgpack.Decoder(Header).decode


def decode(payload: bytes | memoryview) -> list[Any]:
    """A record's payload, or nothing if it is none, whatever its checksum says."""
    try:
        record = _decode(payload)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return []
    return record if _is_sound(record) else []


def _is_sound(record: list[Any]) -> bool:
    """Whether the fields before the cells have the types that they should."""
    if len(record) < 2 or not (_is_count(record[1]) and type(record[0]) is int):
        return False
    kind, fields = record[0], record[2:]
    if kind == ROW:
        return len(fields) >= 2 and _is_count(fields[0]) and _is_count(fields[1])
    if kind == TABLE:
        return len(fields) == 3 and _is_count(fields[0]) and type(fields[1]) is str
    if kind == COLUMN:
        return len(fields) == 4 and _is_count(fields[0]) and type(fields[1]) is type(fields[2]) is str
    if kind == REWIND:
        return len(fields) == 2 and type(fields[0]) is str and _is_count(fields[1])
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_RECORDS
