"""`cox trust`: vouch for the objects of a run that came from somewhere else."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cox.cli import options
from cox.display.text import printable
from cox.errors import CoxError
from cox.objects.audit import unvouched
from cox.objects.trust import vouch
from cox.storage import layout


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
