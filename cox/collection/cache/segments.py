"""The files of rows in a cache: columns one behind the other, each with a checksum."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import crc32c
import msgspec
import numpy as np

from cox.collection.cache import files
from cox.collection.cache.files import SEGMENT_SUFFIX
from cox.collection.cache.index import Blob, Segment, as_bytes, ints
from cox.schema import Schema
from cox.storage import fs
from cox.storage.columns import Array, Part, decode_text

#: How numbers are kept, by the kind of their column. All else is text.
NUMBERS = {"float": ("<f8",), "int": ("<i8", "<u8"), "bool": ("|b1",)}
_MISSING = "missing"
#: How texts are kept that are not bytes of one small width.
_TEXTS = "texts"
_WIDEST = 255
_WIDTH = re.compile(r"\|S([1-9][0-9]{0,2})")
#: So many bytes of texts are looked at at once.
_PORTION = 1 << 20


def read(directory: Path, segment: Segment, columns: frozenset[str] | None) -> Part:
    """The rows of a segment.

    Args:
        directory: Where it lies.
        segment: What the index says of it.
        columns: The columns that are wanted; None for all.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not what the index says.
    """
    part = Part(int(ints(segment.lengths).sum()), {})
    kinds = {name: kind for name, kind, _ in segment.columns}
    with files.opened(directory / segment.file) as file:
        if os.fstat(file.fileno()).st_size < segment.size:
            raise ValueError("it is cut off")
        for blob in segment.blobs:
            if columns is None or blob.column in columns:
                to = part.missing if blob.what == _MISSING else part.values
                data = _bytes_of(file, blob)
                to[blob.column] = _decoded(data, blob.what, kinds.get(blob.column, ""), part.nrows)
    return part


def write(directory: Path, table: str, schema: Schema, part: Part, ids: list[int], lengths: Array) -> Segment:
    """Write rows into a new segment.

    Raises:
        OSError: The file system refused; nothing is left of it.
    """
    blobs: list[Blob] = []
    path = directory / f"{uuid.uuid4().hex}{SEGMENT_SUFFIX}"
    with fs.new_file(path) as file:
        offset = 0
        for column, what, data in _encoded(part):
            file.write(data)
            blobs.append(Blob(column, what, offset, len(data), crc32c.crc32c(data)))
            offset += len(data)
    columns = [(column.name, column.kind, column.nullable) for column in schema]
    return Segment(path.name, table, columns, as_bytes(ids), as_bytes(lengths), blobs)


def _bytes_of(file: BinaryIO, blob: Blob) -> bytearray:
    if not 0 <= blob.size <= os.fstat(file.fileno()).st_size:
        raise ValueError("a column that is longer than its file")
    data = bytearray(blob.size)  # not bytes: the frame that is made of it may be written to
    file.seek(blob.offset)
    if file.readinto(data) != blob.size or crc32c.crc32c(data) != blob.checksum:  # type: ignore[attr-defined]
        raise ValueError(f"the column {blob.column!r} is damaged")
    return data


def _encoded(part: Part) -> Iterator[tuple[str, str, bytes]]:
    """The columns of a part: name, what it is, bytes."""
    for name, values in part.values.items():
        if values.dtype.hasobject or (values.dtype.kind == "S" and values.dtype.itemsize > _WIDEST):
            texts = decode_text(values) if values.dtype.kind == "S" else values
            yield name, _TEXTS, msgspec.msgpack.encode(texts.tolist())
        else:
            yield name, values.dtype.str, np.ascontiguousarray(values).tobytes()
    for name, mask in part.missing.items():
        yield name, _MISSING, np.packbits(mask).tobytes()


def _decoded(data: bytearray, what: str, kind: str, nrows: int) -> Array:
    """Undo `_encoded`: an array of shape (nrows,), as columns of that kind have them."""
    if what == _MISSING:
        if len(data) != (nrows + 7) // 8:
            raise ValueError("bits of another length")
        return np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=nrows).astype(np.bool_)
    if kind in NUMBERS:
        if what not in NUMBERS[kind]:
            raise ValueError(f"values of type {what!r} in a column of kind {kind!r}")
        values = np.frombuffer(data, dtype=what)
        if what == "|b1" and values.view(np.uint8).max(initial=0) > 1:
            raise ValueError("truth values that are neither")  # numpy counts wrong with them
    elif what == _TEXTS:
        values = np.array(["", *msgspec.msgpack.decode(data, type=list[str])], dtype=object)[1:]
    elif (width := _WIDTH.fullmatch(what)) and int(width[1]) <= _WIDEST:
        values = np.frombuffer(data, dtype=what)
        _check_texts(values)
    else:
        raise ValueError(f"values of type {what!r} in a column of kind {kind!r}")
    if len(values) != nrows:
        raise ValueError("a column of another length")
    return values


def _check_texts(values: Array) -> None:
    """Refuse bytes that are no UTF-8, cell by cell.

    Raises:
        ValueError: They are not.
    """
    width = values.dtype.itemsize
    if (values.view(np.uint8)[::width] & 0xC0 == 0x80).any():
        raise ValueError("a text that begins within a character")
    step = max(1, _PORTION // width)
    for start in range(0, len(values), step):
        values[start : start + step].tobytes().decode()
