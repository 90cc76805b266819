"""`cox trust`: vouch for the objects of a run that came from somewhere else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import click

from cox import safe_pickle
from cox.cli import options
from cox.display.text import printable
from cox.errors import CoxError
from cox.objects import codec, signing
from cox.objects.trust import Place, Trust, place_of, vouch
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


@click.command()
@click.argument("path", type=options.Place(exists=True, file_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print what was found as JSON, and trust it only with --yes."
)
def trust(path: Path, yes: bool, as_json: bool) -> None:
    """Vouch for the objects of the run at PATH.

    Lists what would be called to rebuild the objects that are not plain data and carry no signature of
    yours, and asks. Say yes only if you know where the run comes from: to rebuild an object is to run
    its code. The run's own files are not changed; your word is kept beside them, signed, and counts for
    exactly these bytes.
    """
    run = layout.RunLayout(path.absolute())
    try:
        found = list(unvouched(run))
        if as_json:
            if yes and found:
                vouch(run, (payload.digest for payload in found))
            listed = [payload._asdict() for payload in found]
            click.echo(json.dumps({"run": str(path), "trusted": yes, "objects": listed}))
            return
        if not found:
            click.echo(f"{path}: every object decodes without trust, or is trusted already.")
            return
        click.echo(f"{path}: {len(found)} objects would run code to be rebuilt:")
        for where, needs, _ in found:
            click.echo(f"  {printable(where)}: {printable(needs)}")
        if not yes:
            click.confirm("Do you trust them?", abort=True)
        vouch(run, (payload.digest for payload in found))
    except (CoxError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(found)} objects trusted.")


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
