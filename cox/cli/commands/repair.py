"""`cox repair`: salvage what can be read of damaged runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cox.cli import options
from cox.cli.commands.verify import as_document, show_findings
from cox.display.text import printable
from cox.errors import CoxError, RunNotFoundError
from cox.integrity.redraw import redraw
from cox.integrity.repair import Repair
from cox.integrity.repair import repair as repair_run
from cox.integrity.verify import runs_at


@click.command()
@click.argument("path", type=options.Place(exists=True, file_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only tell what would be kept and lost, or sent.")
@click.option(
    "--tensorboard",
    "points",
    is_flag=True,
    help="Send rows to TensorBoard again whose points are not there any more, and do nothing else. A run "
    "without any point gets all its numbers only if PATH is that run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each run, one a line.")
def repair(path: Path, dry_run: bool, points: bool, as_json: bool) -> None:
    """Salvage what can be read of the run at PATH, or of the runs of the folder at PATH.

    Writes new files, and keeps the originals in `.cox/damaged-…` of the run. Whole runs are left
    untouched, and so are those that a process is writing. The exit status is 0 if all is well now, 1 if
    something could not be repaired.
    """
    try:
        runs = runs_at(path)
    except RunNotFoundError as error:
        raise click.UsageError(str(error)) from error
    if points:
        roots = [run.root for run in runs]
        _redraw(roots, from_nothing=roots == [path], dry_run=dry_run, as_json=as_json)
        return
    damaged = failed = 0
    for run in runs:
        try:
            done = repair_run(run.root, dry_run=dry_run)
        except (CoxError, OSError) as error:
            _refused(run.root, error, as_json=as_json)
            damaged, failed = damaged + 1, failed + 1
            continue
        damaged, failed = damaged + (not done.before.ok), failed + (not done.after.ok)
        if as_json:
            click.echo(json.dumps(_as_document(done, dry_run=dry_run)))
        elif len(runs) == 1 or not done.before.ok:
            _show(done, dry_run=dry_run)
    if len(runs) > 1 and not as_json:
        click.echo(f"{len(runs)} runs: {damaged or 'none'} damaged, {failed or 'none'} still so")
    if failed:
        raise SystemExit(1)


def _redraw(runs: list[Path], *, from_nothing: bool, dry_run: bool, as_json: bool) -> None:
    """Send missing points again, and tell how many each run lacked."""
    failed = False
    for run in runs:
        try:
            lacked = redraw(run, from_nothing=from_nothing, dry_run=dry_run)
        except (CoxError, OSError) as error:
            _refused(run, error, as_json=as_json)
            failed = True
            continue
        if as_json:
            click.echo(
                json.dumps({"run": str(run), "points": lacked} | ({"dry_run": True} if dry_run else {}))
            )
            continue
        missing = sum(lacked.values())
        verdict = "would be sent" if dry_run and missing else "missing"
        click.echo(f"{printable(run)}: {missing or 'no'} point{'' if missing == 1 else 's'} {verdict}")
        for tag, count in lacked.items():
            click.echo(f"  {printable(tag)}: {count or 'goes back, drawn again'}")
    if failed:
        raise SystemExit(1)


def _refused(run: Path, error: Exception, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"run": str(run), "repaired": False, "error": str(error)}))
    else:
        click.echo(f"{printable(run)}: not repaired: {printable(error)}")


def _as_document(done: Repair, *, dry_run: bool) -> dict[str, object]:
    return {
        "run": str(done.before.run),
        "repaired": not done.before.ok and done.originals is not None and not dry_run,
        "before": as_document(done.before),
        "after": as_document(done.after),
        "kept": done.kept,
        "lost": done.lost,
        "originals": None if done.originals is None else str(done.originals),
    }


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
