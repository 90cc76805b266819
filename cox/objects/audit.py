"""Which objects of a run would run code to be rebuilt, if somebody vouched for them. None is rebuilt here."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cox import safe_pickle
from cox.objects import codec, signing
from cox.objects.trust import Place, Trust, place_of
from cox.storage import layout


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
    files: dict[str, tuple[str, list[str]]] = {}
    for table in snapshot.read(run).tables.values():
        for column in table.schema:
            if not column.traits.is_object:
                continue
            values, missing = table.column(column)
            for row, cell in enumerate(values.tolist()):
                if missing is not None and missing[row]:
                    continue
                if column.traits.in_cell:
                    where = f"table {table.name!r}, column {column.name!r}, row {row}"
                    data = io.BytesIO(codec.cell_bytes(cell, where))
                    yield from _examine(data, trusted, place_of(run, table.name, column.name), where)
                else:
                    files.setdefault(Path(cell).name, (table.name, []))[1].append(column.name)
    if run.objects_dir.is_dir():
        for path in sorted(run.objects_dir.iterdir()):
            if path.is_file() and not path.name.startswith(layout.TEMPORARY_PREFIX):
                table_name, columns = files.get(path.name, ("", []))
                where = f"file {layout.OBJECTS_DIR}/{path.name}"
                place = Place(table_name, tuple(columns), where)
                with codec.opened(path, where) as file, codec.private(file) as copy:
                    yield from _examine(copy, trusted, place, where)


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
