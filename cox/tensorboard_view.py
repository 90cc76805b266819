"""`cox-tensorboard`: the runs of a folder in TensorBoard, under names made of their parameters.

A temporary directory of symbolic links, one for each run that passes the filters, is handed to the
real `tensorboard` program, kept in step with the runs, and goes when that ends. Runs are only read. The parts
are in `cox.tensorboard.view`: `Selection` selects and names, and changes nothing; `serve` makes the links
and runs the server.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cox.display.text import printable
from cox.errors import CoxError, CoxWarning, PredicateError, ViewError
from cox.storage.layout import METADATA_TABLE
from cox.tensorboard.view.from_tables import TableEvents
from cox.tensorboard.view.notebook import logdir
from cox.tensorboard.view.selection import Selection, Shown, links, named
from cox.tensorboard.view.server import leave, serve, signals_to

__all__ = ["ViewError", "links", "logdir", "main", "serve"]


class _Command(click.Command):
    """Tells what an option that it does not know may be."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            meant = f"If it is one of tensorboard's, it goes after two dashes: -- {error.option_name}"
            raise click.NoSuchOption(error.option_name, f"{error.message} {meant}", ctx=ctx) from error


@click.command(cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--logdir", "folder", required=True, metavar="DIR", help="The folder of runs.")
@click.option(
    "--format-str",
    metavar="TEXT",
    help="What a run's name begins with: {param} stands for a parameter, as does {param:.3g}, with a format "
    "spec. -<exp_id> is always appended. Without it, the parameters that differ between the runs are shown.",
)
@click.option("--port", default=6006, type=click.IntRange(0, 65535), help="The server's port; 0: a free one.")
@click.option("--metadata-table", default=METADATA_TABLE, metavar="NAME", help="The table of the parameters.")
@click.option(
    "--filter-param",
    multiple=True,
    nargs=2,
    metavar="PARAM REGEX",
    help="Show only runs whose PARAM begins with a match of REGEX: resnet keeps resnet18; end it with $ for "
    "the whole value. Can be given several times: a run has to pass all.",
)
@click.option(
    "--where",
    metavar="CONDITION",
    help="Show only runs whose parameters fit a condition: \"lr < 0.1 and arch == 'resnet18'\".",
)
@click.option(
    "--from-tables",
    "tables",
    multiple=True,
    metavar="TABLE",
    help="Show the numbers in this table, whether they were sent to TensorBoard or not, and nothing else: by "
    "the column step, global_step, iteration or epoch, if its numbers grow, or else by row. Can be given "
    "several times.",
)
@click.option("--nested", is_flag=True, help="Look for runs in directories that are not runs, too.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF TENSORBOARD]")
def main(
    folder: str,
    format_str: str | None,
    port: int,
    metadata_table: str,
    filter_param: tuple[tuple[str, str], ...],
    where: str | None,
    tables: tuple[str, ...],
    nested: bool,
    options: tuple[str, ...],
) -> None:
    """Show the runs of a folder in TensorBoard, under names made of their parameters.

    New runs appear as they start, the first one too. A run whose parameters arrive later gets its name then.
    """
    _check_options(options)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", CoxWarning)
            warnings.showwarning = _show_warning
            selection = Selection(
                folder,
                format_str,
                metadata_table,
                filter_param,
                where,
                needs_events=not tables,
                nested=nested,
            )
            with signals_to(leave), contextlib.ExitStack() as stack:
                made = stack.enter_context(TableEvents(tables, metadata_table)) if tables else None
                refresh = _Refresh(selection, made)
                _say(_headline(folder, len(refresh.targets)))
                if refresh.targets and not any(map(_has_files, refresh.targets.values())):
                    _say("None of them has sent anything to TensorBoard yet; --from-tables shows their rows")
                hold = made.fds if made is not None else ()
                status = serve(refresh.targets, port=port, options=options, refresh=refresh, hold=hold)
    except PredicateError as error:
        for line in f"Error: {error}".split("\n"):  # it shows where
            _say(line, err=True)
        status = 2
    except (CoxError, OSError) as error:
        _say(f"Error: {error}", err=True)
        status = 2
    sys.exit(status)


class _Refresh:
    """What is to be shown by now; what it was, with a word about why, if that cannot be told.

    Attributes:
        targets: Names to directories of event files.

    Raises:
        ViewError: There is nothing to show at first.
    """

    def __init__(self, selection: Selection, tables: TableEvents | None) -> None:
        self._selection, self._tables = selection, tables
        self._told: set[str] = set()
        shown = selection.first(wait=True)
        if shown and tables is not None:
            _say(f"Drawing the rows of {', '.join(tables.tables)}")
        self.targets = self._named(shown)
        if tables is not None:
            tables.check(shown)

    def __call__(self) -> Mapping[str, Path]:
        try:
            self.targets = self._named(self._selection.refreshed())
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
            kind = "" if isinstance(error, (CoxError, OSError)) else f"{type(error).__name__}: "
            if (said := f"{kind}{error}") not in self._told:
                self._told.add(said)
                _say(f"Warning: {said}", err=True)
        return self.targets

    def _named(self, shown: Sequence[Shown]) -> Mapping[str, Path]:
        return named(shown) if self._tables is None else self._tables.targets(shown)


def _headline(folder: str, runs: int) -> str:
    if runs:
        return f"Showing {runs} runs of {folder}"
    missing = "" if Path(folder).exists() else ", which is not there yet"
    return f"Showing the runs of {folder} as they come: there are none to show yet{missing}"


def _has_files(directory: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(directory.iterdir())
    return False


def _check_options(options: Sequence[str]) -> None:
    if options and not options[0].startswith("-"):
        raise click.UsageError(f"unexpected argument {options[0]!r}: does a value want quotes?")
    for option in options:
        if re.match("--(logdir|port)", option):
            raise click.UsageError(f"{option!r} cannot be handed on to tensorboard: give it before the --")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"Warning: {message}", err=True)


def _say(text: str, *, err: bool = False) -> None:
    encoding = (sys.stderr if err else sys.stdout).encoding
    shown = printable(text, "_").encode(encoding, "backslashreplace")
    click.echo(shown.decode(encoding), err=err)


if __name__ == "__main__":
    main()
