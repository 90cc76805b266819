"""What completes the arguments of commands in a shell: runs and tables."""

from __future__ import annotations

from pathlib import Path

import click


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The runs, and the folders, whose paths begin so."""
    folder, slash, begun = incomplete.rpartition("/")
    try:
        found = [path for path in Path(folder or slash or ".").iterdir() if path.is_dir()]
    except OSError:
        return []
    names = sorted(path.name for path in found if path.name.startswith(begun))
    return [f"{folder}{slash}{name}" for name in names if begun or not name.startswith(".")]


def tables(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The tables of one run of the folder, or of the run, whose names begin so."""
    from cox.errors import CoxError
    from cox.storage import layout, snapshot
    from cox.storage.scan import find_runs, is_run

    folder = Path(ctx.params.get("run") or ctx.params.get("path") or ".")
    try:
        some = layout.RunLayout(folder) if is_run(folder) else next(find_runs(folder), None)
        names = [] if some is None else list(snapshot.read(some, rows=False).tables)
    except (CoxError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]
