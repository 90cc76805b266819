"""Which objects of a run would run code to be rebuilt, if somebody vouched for them. None is rebuilt here."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from cox import safe_pickle
from cox.objects import codec, signing
from cox.objects.trust import Place, Trust, place_of
from cox.storage import layout
from cox.storage.columns import TableData


class Payload(NamedTuple):
    """An object that decodes only if somebody vouches for it.

    Attributes:
        where: Which cell or file it is.
        needs: What would be called to rebuild it.
        digest: SHA-256 of its bytes, in hex: of those that were looked at, whatever the file holds by then.
    """

    where: str
    needs: str
    digest: str


def unvouched(run: layout.RunLayout) -> Iterator[Payload]:
    """The objects of a run that `cox` would refuse to rebuild. Rebuilds none of them.

    Raises:
        RunNotFoundError: The directory is no run.
        DamagedError: The run cannot be read.
    """
    from cox.storage import snapshot

    trusted = Trust(run)
    tables = snapshot.read(run).tables.values()
    for table, column, row, cell in _cells(tables, in_cell=True):
        where = f"table {table!r}, column {column!r}, row {row}"
        data = io.BytesIO(codec.cell_bytes(cell, where))
        yield from _examine(data, trusted, place_of(run, table, column), where)
    owners: dict[str, tuple[str, list[str]]] = {}
    for table, column, _, cell in _cells(tables, in_cell=False):
        owners.setdefault(Path(cell).name, (table, []))[1].append(column)
    for path in _files(run.objects_dir):
        table, columns = owners.get(path.name, ("", []))
        where = f"file {layout.OBJECTS_DIR}/{path.name}"
        with codec.opened(path, where) as file, codec.private(file) as copy:
            yield from _examine(copy, trusted, Place(table, tuple(columns), where), where)


def _cells(tables: Iterable[TableData], *, in_cell: bool) -> Iterator[tuple[str, str, int, Any]]:
    """The cells of objects, with table, column and row: those that hold one, or those that name its file."""
    for table in tables:
        for column in table.schema:
            if column.traits.is_object and column.traits.in_cell == in_cell:
                values, missing = table.column(column)
                for row, cell in enumerate(values.tolist()):
                    if missing is None or not missing[row]:
                        yield table.name, column.name, row, cell


def _files(directory: Path) -> list[Path]:
    paths = sorted(directory.iterdir()) if directory.is_dir() else []
    return [path for path in paths if path.is_file() and not path.name.startswith(layout.TEMPORARY_PREFIX)]


def _examine(file: BinaryIO, trusted: Trust, place: Place, where: str) -> Iterator[Payload]:
    """The object in a file that nobody else can change, if it needs somebody to vouch for it."""
    file.seek(0)
    is_archive = file.read(2) == b"PK"  # torch's
    file.seek(0)
    needs = codec.beyond_weights(file) if is_archive else _beyond_plain(file)
    if needs and not trusted.covers(file, place):
        yield Payload(where, needs, signing.sealed(file).digest.hex())


def _beyond_plain(file: BinaryIO) -> str:
    try:
        safe_pickle.load(file)
    except safe_pickle.NotPlainError as refusal:
        file.seek(0)
        return ", ".join(safe_pickle.names_in(file)) or refusal.name
    return ""
