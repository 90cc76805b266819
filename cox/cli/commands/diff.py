"""`cox diff`: in what two runs differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cox.cli import completion, options, tables, terminal
from cox.cli.runs import find
from cox.collection.naming import shortening
from cox.display.grid import from_frame

if TYPE_CHECKING:
    from cox.readers import CollectionReader
    from cox.storage.layout import RunLayout


@click.command()
@click.argument("first", metavar="RUN", shell_complete=completion.runs)
@click.argument("second", metavar="RUN", shell_complete=completion.runs)
@options.output
def diff(first: str, second: str, format: str | None, output: Path | None, as_json: bool) -> None:
    """Tell in what two runs differ: parameters, where they were made, and the last rows of their tables.

    A RUN is the path of a run; the beginning of its name is enough.

    \b
    Example:
      cox diff runs/3f2a runs/9c41
    """  # noqa: D301
    how = tables.format_of(format, output, as_json)
    reader, names = _both(find(first), find(second))
    frame = reader.diff(*names)
    if how == "json":
        grid = from_frame(frame)
        keys = ("section", "name", "first", "second", "change")
        found = [dict(zip(keys, row, strict=True)) for row in grid.rows()]
        document = {"first": names[0], "second": names[1], "same": frame.attrs["same"], "differences": found}
        tables.emit_text(tables.as_json(document), output)
        return
    if len(frame) or how != "table":
        from cox.analysis.shown import differences

        for_people = how not in ("csv", "jsonl", "parquet")
        grid = differences(frame, shortening(names)) if for_people else from_frame(frame)
        tables.emit(grid, how, output, as_json=False)
    same = frame.attrs["same"]
    terminal.note(f"{len(frame)} {'difference' if len(frame) == 1 else 'differences'}, {same} the same")


def _both(first: RunLayout, second: RunLayout) -> tuple[CollectionReader, tuple[str, str]]:
    """One reader that has both runs, which may lie in two folders, and what they are called in it."""
    from cox.readers import CollectionReader

    reader = CollectionReader([first.root.parent, second.root.parent])
    called = {reader.source.layout(name).root: name for name in reader.exp_ids}
    return reader, (called[first.root], called[second.root])
