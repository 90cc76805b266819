"""`cox trust`: vouch for the objects of a run that came from somewhere else."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from cox import objects, plain
from cox.display.text import printable
from cox.errors import CoxError
from cox.storage import layout


class Payload(NamedTuple):
    """An object that decodes only if somebody vouches for it.

    Attributes:
        where: Which cell or file it is.
        needs: What would be called to rebuild it.
        digest: SHA-256 of its bytes, in hex.
    """

    where: str
    needs: str
    digest: str


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
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
                objects.write_trusted(run, (payload.digest for payload in found))
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
        objects.write_trusted(run, (payload.digest for payload in found))
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

    trusted = objects.Trust(run)
    for table in snapshot.read(run).tables.values():
        for column in table.schema:
            if column.kind == "object":
                values, missing = table.column(column)
                for row, cell in enumerate(values.tolist()):
                    if missing is None or not missing[row]:
                        where = f"table {table.name!r}, column {column.name!r}, row {row}"
                        yield from _examine(objects.cell_bytes(cell, where), trusted, where)
    if run.objects_dir.is_dir():
        for path in sorted(run.objects_dir.iterdir()):
            if path.is_file() and not path.name.startswith(layout.TEMPORARY_PREFIX):
                yield from _examine_file(path, trusted)


def _examine(data: bytes, trusted: objects.Trust, where: str) -> Iterator[Payload]:
    try:
        plain.loads(data)
    except plain.NotPlainError:
        if not trusted.covers(data):
            needs = ", ".join(plain.names_in(io.BytesIO(data)))
            yield Payload(where, needs, hashlib.sha256(data).hexdigest())


def _examine_file(path: Path, trusted: objects.Trust) -> Iterator[Payload]:
    where = f"file {layout.OBJECTS_DIR}/{path.name}"
    with path.open("rb") as file:
        if file.read(2) == b"PK":  # a zip archive: torch's
            needs = objects.beyond_weights(path)
        else:
            file.seek(0)
            try:
                plain.load(file)
            except plain.NotPlainError:
                file.seek(0)
                needs = ", ".join(plain.names_in(file))
            else:
                needs = ""
    if needs and not trusted.covers_file(path):
        yield Payload(where, needs, objects.digest_of(path))
