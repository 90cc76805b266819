"""`cox cache`: what a folder's cache takes, and its end."""

from __future__ import annotations

from pathlib import Path

import click

from cox.cli import options, tables
from cox.display import times
from cox.display.text import printable


@click.command()
@options.path
@click.option("--clear", is_flag=True, help="Remove it.")
@options.as_json
def cache(path: Path, clear: bool, as_json: bool) -> None:
    """Tell how large the cache of the folder PATH is.

    What was read of the runs is kept in PATH/.cox-cache, so that it need not be read again; where others
    could change that, or you may not write there, in ~/.cache/cox. To remove it costs time at the next
    reading, and nothing else.

    \b
    Example:
      cox cache runs --clear
    """  # noqa: D301
    from cox.collection import cache as of_folder

    runs, segments, size = of_folder.size(path)
    directories = [str(directory) for directory in of_folder.places.there(path)]
    if clear:
        of_folder.clear(path)
    if as_json:
        document = {
            "path": str(path),
            "directories": directories,
            "runs": runs,
            "segments": segments,
            "bytes": size,
            "cleared": clear,
        }
        click.echo(tables.as_json(document), nl=False)
    elif not size:
        click.echo(f"{printable(path)}: no cache")
    else:
        told = f"{runs:,} {'run' if runs == 1 else 'runs'}, {times.as_bytes(size)}"
        where = "" if directories == [str(path / ".cox-cache")] else f" in {' and '.join(directories)}"
        click.echo(f"{printable(path)}: {told}{printable(where)}" + (", removed" if clear else ""))
