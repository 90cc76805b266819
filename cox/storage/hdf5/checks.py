"""What is checked of a store file before HDF5 is asked for what is in it.

HDF5 believes what a file says of itself: it writes an attribute that is an array into a buffer for one value,
and reads on behind the end of a chunk that is too short. So nothing is read, or copied along, whose class,
shape, size and place are not those that cox, PyTables and pandas give it. No other module reads attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from cox.errors import DamagedError
from cox.storage import layout
from cox.storage.hdf5 import packing

#: What a file may claim to hold without a look at what is there, in bytes; and how many times of what is
#: there. Deflate makes 1032 of one, and nothing that pandas compresses with makes more in its small chunks.
_BELIEVED_BYTES = 1024 * 1024
_BELIEVED_RATIO = 4096

#: How deep groups may lie in groups. HDF5 copies them recursively, on the stack of the process.
MOST_NESTED = 32

#: Larger attributes, larger rows and more columns than these, no program writes.
_MOST_ATTRIBUTE = 256 * 1024 * 1024
_MOST_ITEMSIZE = 2**31 - 1
_MOST_FIELDS = 100_000

_NUMBERS = frozenset({h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.BITFIELD, h5py.h5t.ENUM})
_FILTERS = frozenset({packing.DEFLATE, packing.SHUFFLE, packing.FLETCHER32})


# --- Names


def check_table_name(name: object) -> str:
    """The name of a table as a file gives it.

    Raises:
        DamagedError: It is not a name, or as a path it would lead out of a directory.
    """
    if not layout.is_stored_table_name(name):
        raise DamagedError(f"{name!r} cannot be the name of a table")
    return str(name)


def check_writers(writers: dict[str, Any]) -> dict[str, Any]:
    """The writers that a file names.

    Raises:
        DamagedError: A name is not that of a writer.
    """
    for name in writers:
        if not layout.is_writer_name(name):
            raise DamagedError(f"{name!r} cannot be the name of a writer")
    return writers


# --- Attributes


def has_attribute(owner: Any, name: str) -> bool:
    """Whether a file, group or dataset, by its low-level id, has an attribute."""
    return bool(h5py.h5a.exists(owner, name.encode()))


def text_attribute(owner: Any, name: str) -> bytes:
    """The bytes of an attribute that is one text, or one opaque value, of a fixed size.

    Raises:
        DamagedError: It is anything else.
        KeyError: There is none.
    """
    attribute = h5py.h5a.open(owner, name.encode())
    kind, space = attribute.get_type(), attribute.get_space()
    extent, sort = space.get_simple_extent_type(), kind.get_class()
    if sort != h5py.h5t.OPAQUE and (sort != h5py.h5t.STRING or kind.is_variable_str()):
        raise DamagedError(f"{name} is not a text of a fixed size")
    if extent == h5py.h5s.NULL:
        return b""
    size = kind.get_size()
    if extent != h5py.h5s.SCALAR or attribute.get_storage_size() != size:
        raise DamagedError(f"{name} is not one text, but an array of shape {attribute.shape}")
    if not 0 < size <= _MOST_ATTRIBUTE:
        raise DamagedError(f"{name} claims {size} bytes")
    raw = np.empty((), dtype=f"{'V' if sort == h5py.h5t.OPAQUE else 'S'}{size}")
    attribute.read(raw, mtype=kind)
    return raw.tobytes()


def integer_attribute(owner: Any, name: str) -> int:
    """The value of an attribute that is one integer.

    Raises:
        DamagedError: It is anything else.
    """
    attribute = h5py.h5a.open(owner, name.encode())
    kind = attribute.get_type()
    is_scalar = attribute.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
    if kind.get_class() != h5py.h5t.INTEGER or kind.get_size() > 8 or not is_scalar:
        raise DamagedError(f"{name} is not an integer")
    value = np.empty((), dtype=np.int64)
    attribute.read(value)
    return int(value)


# --- Datasets


def check_size(claimed: int, there: Callable[[], int]) -> None:
    """Refuse to make room for more than the bytes in the file can stand for, whatever a header claims.

    A chunk that is not there reads as zeros, and HDF5 trusts the size of those that are.

    Args:
        claimed: How many bytes there should be.
        there: Tells how many there are, compressed; asked where that matters.
    """
    if claimed > _BELIEVED_BYTES and claimed > _BELIEVED_RATIO * there():
        raise DamagedError(f"{claimed} bytes are claimed, and {there()} are there")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A list of rows that lie in the file itself, in chunks.

    Attributes:
        id: It, for HDF5.
        nrows: How many rows it has.
        chunk_rows: How many rows a chunk has.
        filters: The numbers of the filters that a chunk goes through, in this order.
    """

    id: h5py.h5d.DatasetID
    nrows: int
    chunk_rows: int
    filters: list[int]

    def dtype(self) -> np.dtype[Any]:
        """The dtype of a row, see `stored_dtype`."""
        return stored_dtype(self.id.get_type())


def open_dataset(file: h5py.h5f.FileID, path: str) -> Dataset:
    """Open a list of rows in this file, in chunks; `packing` looks at their filters.

    Each question to h5py costs some microseconds, and there are a few for each run: each is asked once.

    Raises:
        DamagedError: It is something else. Says in what.
    """
    dataset = h5py.h5d.open(file, path.encode())
    how = dataset.get_create_plist()
    if how.get_layout() != h5py.h5d.CHUNKED:
        if how.get_external_count() or how.get_layout() == h5py.h5d.VIRTUAL:
            raise DamagedError(f"{path!r} keeps its rows outside of the file")
        raise DamagedError(f"{path!r} does not keep its rows in chunks")
    shape = dataset.get_space().get_simple_extent_dims()
    if len(shape) != 1:
        raise DamagedError(f"{path!r} is not a list of rows")
    return Dataset(dataset, shape[0], how.get_chunk()[0], filters_of(how))


def filters_of(how: h5py.h5p.PropDCID) -> list[int]:
    """The numbers of a dataset's filters, in the order in which chunks go through them."""
    return [how.get_filter(i)[0] for i in range(how.get_nfilters())]


_dtypes: dict[bytes, np.dtype[Any]] = {}


def stored_dtype(kind: h5py.h5t.TypeID) -> np.dtype[Any]:
    """The dtype of a dataset: of numbers, or of fields such as tables have.

    Runs share few types, and h5py takes its time over each.

    Raises:
        DamagedError: No table has such a type.
    """
    key = kind.encode()
    if key not in _dtypes:
        _check_type(kind)
        dtype = kind.dtype
        if dtype.hasobject or dtype.itemsize != kind.get_size():
            raise DamagedError(f"rows of type {dtype}, which no table has")
        if len(_dtypes) > 1000:
            _dtypes.clear()
        _dtypes[key] = dtype
    return _dtypes[key]


def _check_type(kind: h5py.h5t.TypeID) -> None:
    """Refuse what would be more than its own bytes: references, texts and lists of variable length."""
    if not 0 < kind.get_size() <= _MOST_ITEMSIZE:
        raise DamagedError(f"rows of {kind.get_size()} bytes")
    if kind.get_class() != h5py.h5t.COMPOUND:
        _check_cell(kind)
        return
    if kind.get_nmembers() > _MOST_FIELDS:
        raise DamagedError(f"rows of {kind.get_nmembers()} fields")
    for i in range(kind.get_nmembers()):
        field = kind.get_member_type(i)
        if field.get_class() == h5py.h5t.ARRAY:
            if len(field.get_array_dims()) != 1:
                raise DamagedError(f"a field of shape {field.get_array_dims()}, which no table has")
            field = field.get_super()
        _check_cell(field)


def _check_cell(kind: h5py.h5t.TypeID) -> None:
    sort = kind.get_class()
    is_text = sort == h5py.h5t.STRING and not kind.is_variable_str()
    if not (is_text or (sort in _NUMBERS and kind.get_size() <= 16)):
        raise DamagedError("cells that are neither numbers nor texts of a fixed size")


# --- What is copied along


def check_copyable(file: h5py.h5f.FileID, name: str) -> None:
    """Refuse to copy something of the user's own that would reach out of the file, or break the process.

    Raises:
        DamagedError: Says what is in the way, and what to do.
    """
    pending, seen = [(name, file, name.encode(), 0)], set[Any]()
    while pending:
        path, group, inner, depth = pending.pop()
        if depth > MOST_NESTED:
            raise _uncopyable(path, f"lies more than {MOST_NESTED} groups deep")
        if group.links.get_info(inner).type != h5py.h5l.TYPE_HARD:
            continue  # a link is copied as a link
        item = h5py.h5o.open(group, inner)
        address = h5py.h5o.get_info(item).addr
        if address in seen:
            continue
        seen.add(address)
        for i in range(h5py.h5a.get_num_attrs(item)):
            _check_copied_type(h5py.h5a.open(item, index=i).get_type(), path)
        if isinstance(item, h5py.h5d.DatasetID):
            _check_copied_dataset(item, path)
        elif isinstance(item, h5py.h5g.GroupID):
            pending += [(f"{path}/{each.decode(errors='replace')}", item, each, depth + 1) for each in item]


def _check_copied_dataset(dataset: h5py.h5d.DatasetID, path: str) -> None:
    how = dataset.get_create_plist()
    if how.get_external_count() or how.get_layout() == h5py.h5d.VIRTUAL:
        raise _uncopyable(path, "keeps its data outside of the file")
    kind = dataset.get_type()
    _check_copied_type(kind, path)
    if kind.detect_class(h5py.h5t.VLEN) or kind.detect_class(
        h5py.h5t.REFERENCE
    ):  # HDF5 unpacks and rewrites it
        if unknown := [number for number in filters_of(how) if number not in _FILTERS]:
            raise _uncopyable(path, f"is packed by the HDF5 filter {unknown[0]}")
        claimed = int(np.prod(dataset.shape, dtype=np.float64)) * kind.get_size()
        try:
            check_size(claimed, dataset.get_storage_size)
        except DamagedError as error:
            raise _uncopyable(path, str(error)) from None


def _check_copied_type(kind: h5py.h5t.TypeID, path: str) -> None:
    if not 0 < kind.get_size() <= _MOST_ITEMSIZE:
        raise _uncopyable(path, f"has values of {kind.get_size()} bytes")


def _uncopyable(path: str, why: str) -> DamagedError:
    return DamagedError(f"{path!r}, which is not a table of cox, {why}: remove it from the store file")
