"""`cox verify`: whether runs are whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from cox.cli import options
from cox.display.text import printable
from cox.errors import RunNotFoundError
from cox.integrity.verify import Report, runs_at
from cox.integrity.verify import verify as verify_run

#: How many findings of a run are printed; --json has them all.
MOST_FINDINGS = 20


@click.command()
@click.argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=options.Place(exists=True, file_okay=False, path_type=Path),
)
@click.option("-v", "--verbose", is_flag=True, help="Show runs that are fine, too, and what is no damage.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each run, one a line.")
def verify(paths: tuple[Path, ...], verbose: bool, as_json: bool) -> None:
    """Check every file of the runs at PATH: each is a run, or a folder of runs.

    Reads all journals, all of store.h5, the files of stored objects and TensorBoard's event files, and
    changes nothing. A run may be checked while it is written. The exit status is 0 if every run is whole,
    1 if any is damaged.
    """
    try:
        runs = [run for path in paths for run in runs_at(path)]
    except RunNotFoundError as error:
        raise click.UsageError(str(error)) from error
    damaged = 0
    for run in runs:
        report = verify_run(run.root)
        damaged += not report.ok
        if as_json:
            click.echo(json.dumps(as_document(report)))
        elif verbose or not report.ok or len(runs) == 1:
            count = len(report.findings)
            click.echo(f"{printable(report.run)}: {_counted(count) if count else 'ok'}")
            show_findings(report, notes=verbose or len(runs) == 1)
    if len(runs) > 1 and not as_json:
        click.echo(f"{len(runs)} runs, {damaged or 'none'} damaged")
    if damaged:
        raise SystemExit(1)


def show_findings(report: Report, *, notes: bool = False) -> None:
    """Print a line for each finding of a report, up to a screenful."""
    for finding in report.findings[:MOST_FINDINGS]:
        click.echo(f"  {printable(finding.file)}: {printable(finding.problem)}")
    if (more := len(report.findings) - MOST_FINDINGS) > 0:
        click.echo(f"  … and {more} more; cox verify --json has them all")
    for note in report.notes if notes else []:
        click.echo(f"  note: {printable(note.file)}: {printable(note.problem)}")


def _counted(count: int) -> str:
    return f"{count} finding{'s' if count > 1 else ''}"


def as_document(report: Report) -> dict[str, object]:
    """A report for JSON."""
    made: dict[str, object] = {"run": str(report.run), "ok": report.ok}
    for key, found in (("findings", report.findings), ("notes", report.notes)):
        made[key] = [dataclasses.asdict(finding) for finding in found]
    return made
