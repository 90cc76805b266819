"""Options and arguments that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from cox.cli import completion

F = TypeVar("F", bound=Callable[..., Any])

#: How rows can be printed or saved.
FORMATS = ("table", "csv", "json", "jsonl", "md", "latex", "parquet")


class Place(click.Path):
    """A path. `~` is the home directory, also where no shell has seen to that: in `--logdir=~/runs`, say."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the path."""
        return super().convert(os.path.expanduser(value), param, ctx)  # noqa: PTH111 - it may be bytes


FOLDER = Place(exists=True, file_okay=False, path_type=Path)

path = click.argument("path", default=".", type=FOLDER)
table = click.argument("table", shell_complete=completion.tables)
run = click.argument("run", metavar="RUN", shell_complete=completion.runs)
nested = click.option("--nested", is_flag=True, help="Look for runs deeper in the folder, too.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
where = click.option("--where", metavar="COND", help="Only rows such as \"step > 10 and phase == 'test'\".")
params = click.option("--params", metavar="COND", help='Only runs with parameters such as "lr < 0.1".')
by = click.option("--by", multiple=True, metavar="PARAM", help="Group runs by this parameter. Repeatable.")
over = click.option(
    "--over", multiple=True, metavar="PARAM", help="Average over this parameter, as the seed. Repeatable."
)
mixed = click.option("--mixed", is_flag=True, help="Average runs that differ in other parameters, too.")


def _listed(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


columns = click.option(
    "--columns", metavar="A,B", callback=_listed, help="Only these columns, in this order."
)


def output(command: F) -> F:
    """The options of commands that print rows: --format, --output and --json, as one `Output`."""
    options: Sequence[Callable[[F], F]] = (
        click.option(
            "--format",
            "format",
            type=click.Choice(FORMATS),
            help="How to print: by default as a table in a terminal, as CSV in a pipe, and by the suffix "
            "of FILE.",
        ),
        click.option(
            "-o",
            "--output",
            metavar="FILE",
            type=Place(dir_okay=False, path_type=Path),
            help="Write to FILE: .csv, .json, .jsonl, .md, .tex, .txt or .parquet.",
        ),
        as_json,
    )
    return reduce(lambda made, option: option(made), reversed(options), command)
