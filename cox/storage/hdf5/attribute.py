"""COX_RUN: what a store file says of itself, decoded and checked in one place.

Whoever reads it afterwards may believe that everything in it has the type and the range that
docs/FORMAT.md gives it, and that its parts agree.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from cox.errors import DamagedError, FormatVersionError
from cox.storage.hdf5 import checks
from cox.storage.hdf5.content import RUN_ATTRIBUTE, VERSION
from cox.storage.journal.format import MOST_RECORDS

_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Seq = Annotated[int, Meta(ge=0, le=MOST_RECORDS)]
_Salt = Annotated[int, Meta(ge=0, lt=2**32)]


class _TableCore(TypedDict):
    columns: list[tuple[str, str, bool]]
    places: list[tuple[str, Annotated[int, Meta(ge=-1)]]]
    nrows: _Count


class Table(_TableCore, total=False):
    """What is said of a table; `number` and what follows only where a list is not empty."""

    number: _Count
    missing: list[_Count]
    exact: list[_Count]
    zoned: list[_Count]


class _WriterCore(TypedDict):
    seq: _Seq
    rows: dict[str, _Count]


class Writer(_WriterCore, total=False):
    """What is said of a writer; the journals only by version 2."""

    journals: list[tuple[_Salt, _Seq]]
    emptied: list[tuple[_Salt, _Seq]]


class _Version(TypedDict):
    version: int


class _RunCore(_Version):
    tables: dict[str, Table]
    writers: dict[str, Writer]
    folded_bytes: _Count


class Run(_RunCore, total=False):
    """All of COX_RUN; the id only in version 2."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


_decode_version = msgspec.json.Decoder(_Version).decode
_decode = msgspec.json.Decoder(Run).decode


def decode(text: bytes, path: str) -> Run:
    """What COX_RUN says.

    Args:
        text: Its bytes.
        path: The file, for the error.

    Raises:
        DamagedError: It is not as docs/FORMAT.md has it. Says in what.
        FormatVersionError: A newer cox wrote it.
    """
    try:
        run = _decode(text)
        _check_version(run["version"], path)
        for name, table in run["tables"].items():
            checks.check_table_name(name)
            _check_table(name, table)
        for name, writer in checks.check_writers(run["writers"]).items():
            _check_writer(name, writer, run)
    except FormatVersionError:
        raise
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        with contextlib.suppress(ValueError, RecursionError):  # a newer one may be made otherwise
            _check_version(_decode_version(text)["version"], path)
        raise DamagedError(f"{RUN_ATTRIBUTE} cannot be read: {error}") from error
    return run


def _check_version(version: int, path: str) -> None:
    if version > VERSION:
        raise FormatVersionError(
            f"{path} is a store of format {version}; this cox reads up to {VERSION}: upgrade cox"
        )


def _check_table(name: str, table: Table) -> None:
    columns = [name for name, _, _ in table["columns"]]
    if len(table["places"]) != len(columns):
        raise ValueError(f"table {name!r} has {len(columns)} columns, and {len(table['places'])} places")
    if len(set(columns)) != len(columns):
        raise ValueError(f"table {name!r} has two columns of one name")
    if max(table.get("zoned", ()), default=-1) >= len(columns):
        raise ValueError(f"table {name!r} has no column {max(table['zoned'])} of times")
    lists: list[Any] = [*table.get("missing", ()), *table.get("exact", ())]
    if lists and (max(lists) >= len(columns) or "number" not in table):
        raise ValueError(f"table {name!r} has no column {max(lists)} of which cells are listed")


def _check_writer(name: str, writer: Writer, run: Run) -> None:
    for table, nrows in writer["rows"].items():
        if table in run["tables"] and nrows > run["tables"][table]["nrows"]:
            raise ValueError(f"writer {name} has {nrows} rows of table {table!r}, which has fewer")
    for journals in (writer.get("journals", ()), writer.get("emptied", ())):
        if any(end > writer["seq"] for _, end in journals):
            raise ValueError(f"writer {name} has a journal that goes on behind record {writer['seq']}")
