"""`cox repair`: salvage what can be read of damaged runs."""

from __future__ import annotations

from pathlib import Path

import click

from cox.cli.terminal import printable
from cox.cli.verify import show_findings
from cox.errors import CoxError, RunNotFoundError
from cox.repair import Repair
from cox.repair import repair as repair_run
from cox.verify import runs_at


@click.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only tell what would be kept and lost.")
def repair(path: Path, dry_run: bool) -> None:
    """Salvage what can be read of the run at PATH, or of the runs of the folder at PATH.

    Writes new files, and keeps the originals in `.cox/damaged-…` of the run. Whole runs are left
    untouched, and so are those that a process is writing. The exit status is 0 if all is well now, 1 if
    something could not be repaired.
    """
    try:
        runs = runs_at(path)
    except RunNotFoundError as error:
        raise click.UsageError(str(error)) from error
    damaged = failed = 0
    for run in runs:
        try:
            done = repair_run(run.root, dry_run=dry_run)
        except (CoxError, OSError) as error:
            click.echo(f"{printable(run.root)}: not repaired: {printable(error)}")
            damaged, failed = damaged + 1, failed + 1
            continue
        damaged, failed = damaged + (not done.before.ok), failed + (not done.after.ok)
        if len(runs) == 1 or not done.before.ok:
            _show(done, dry_run=dry_run)
    if len(runs) > 1:
        click.echo(f"{len(runs)} runs: {damaged or 'none'} damaged, {failed or 'none'} still so")
    if failed:
        raise SystemExit(1)


def _show(done: Repair, *, dry_run: bool) -> None:
    """Print what was done to a run: a line on it, what was found, what is left of its tables."""
    click.echo(f"{printable(done.before.run)}: {_outcome(done, dry_run=dry_run)}")
    show_findings(done.before)
    if not any(done.kept.values()) and any(finding.what == "rows" for finding in done.before.findings):
        click.echo("  no rows kept")
    for name, kept in done.kept.items():
        lost = done.lost.get(name)
        click.echo(f"  table {printable(repr(name))}: {kept} rows kept" + (f", {lost} lost" if lost else ""))
    if not done.after.ok and done.after is not done.before:
        click.echo("  still damaged:")
        show_findings(done.after)


def _outcome(done: Repair, *, dry_run: bool) -> str:
    if done.before.ok:
        return "ok, untouched"
    if done.before.repairable and dry_run:
        return "would be repaired"
    if done.originals is None:
        return "cannot be repaired"
    return f"repaired{'' if done.after.ok else ' in part'}; the originals are in {printable(done.originals)}"
