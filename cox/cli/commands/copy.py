"""`cox copy`: copy runs to another place, also while they are written."""

from __future__ import annotations

from pathlib import Path

import click

from cox import progress
from cox.cli import options, tables
from cox.display.text import printable
from cox.errors import CoxError, RunNotFoundError
from cox.integrity.copying import Copy, copy_run
from cox.integrity.verify import runs_at


@click.command()
@click.argument("src", type=options.FOLDER)
@click.argument("dest", type=click.Path(file_okay=False, path_type=Path))
@options.as_json
def copy(src: Path, dest: Path, as_json: bool) -> None:
    """Copy the run SRC, or each run of the folder SRC, into the folder DEST.

    The runs may be written meanwhile: each row that was acknowledged before is in the copy, which cp, tar
    and rsync cannot promise. Each file is read again and compared. Call it again to go on where it was cut
    off, or to bring a copy up to date. Another run of the same name in DEST is left alone.

    \b
    Example:
      cox copy runs /backup/runs
    """  # noqa: D301
    try:
        runs = [run.root for run in runs_at(src)]
    except RunNotFoundError as error:
        raise click.UsageError(str(error)) from error
    copies, refusals = [], {}
    for run in progress.shown(runs, len(runs), "copied"):
        try:
            copies.append(copy_run(run, dest))
        except CoxError as error:  # costs only itself
            refusals[run] = error
    if as_json:
        documents = [_as_document(copy) for copy in copies]
        documents += [{"run": str(run), "error": str(error)} for run, error in refusals.items()]
        click.echo(tables.as_json(documents), nl=False)
    else:
        _show(copies, refusals)
    if refusals:
        raise SystemExit(1)


def _as_document(copy: Copy) -> dict[str, object]:
    return {
        "run": str(copy.run),
        "copy": str(copy.dest),
        "files": copy.files,
        "bytes": copy.bytes,
        "left_out": copy.left_out,
    }


def _show(copies: list[Copy], refusals: dict[Path, CoxError]) -> None:
    for copy in copies:
        what = f"{copy.files:,} files, {copy.bytes:,} bytes" if copy.files else "up to date"
        click.echo(f"{printable(copy.dest)}: {what}")
        for name in copy.left_out:
            click.echo(f"  not copied: {printable(name)} is neither a file nor a directory")
    for run, error in refusals.items():
        click.echo(f"{printable(run)}: not copied: {printable(error)}", err=True)
