"""`cox` on the command line: one small module for each command, imported when it is called.

They are in `commands`. Beside it, `terminal` says what may reach a terminal, `tables` prints rows,
`options` are those that commands share, and `runs` finds what they are about. Nothing is computed here:
that is for the layers below.
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cox import errors
from cox.cli import terminal
from cox.errors import CoxError, unknown
from cox.version import __version__

#: What stands in `cox --help`: a line for each command, so that none has to be imported for it.
SECTIONS: dict[str, dict[str, str]] = {
    "Look at runs": {
        "ls": "List the runs of a folder, the newest first.",
        "show": "Show all there is to know about a run.",
        "tail": "Print the last rows of a run, and follow it.",
        "df": "Print or save a table of all runs.",
        "sql": "Ask DuckDB about the tables of all runs.",
    },
    "Compare them": {
        "compare": "Average a metric over seeds, with intervals.",
        "diff": "Tell in what two runs differ.",
        "plot": "Draw a metric of all runs.",
        "tensorboard": "Show the runs of a folder in TensorBoard.",
    },
    "Take care of them": {
        "export": "Write all tables as Parquet.",
        "copy": "Copy runs, also while they are written.",
        "verify": "Check runs for damage.",
        "repair": "Salvage what can be read of damaged runs.",
        "trust": "Vouch for the objects of a run.",
        "cache": "Tell how large a folder's cache is, or clear it.",
        "completion": "Print what makes your shell complete commands.",
    },
}
#: Commands that are the function of another name, or live elsewhere.
_ELSEWHERE = {"tensorboard": ("cox.tensorboard_view", "main")}


#: As a shell tells of a program that SIGPIPE ended.
_SIGPIPE = 141
#: What a full or broken output answers.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class Commands(click.Group):
    """The commands: imported when called, listed by what they are for, and alike in how they fail."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of `cox --help`."""
        return [name for section in SECTIONS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, name = _ELSEWHERE.get(cmd_name, (f"cox.cli.commands.{cmd_name}", cmd_name))
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was called, or tell which one may have been meant."""
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            ctx.fail(unknown("there is no command", name, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each kind of command, in columns of the same width."""
        widest = max(map(len, self.list_commands(ctx)))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), line) for name, line in commands.items()])

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """Read the arguments. Where they ask for help, that is printed here."""
        terminal.open_streams()
        with _errors_in_lines():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: click.Context) -> object:
        """Call a command. What goes wrong is told in a line on stderr, without a traceback."""
        terminal.tolerate_any_encoding()
        with errors.as_options(), terminal.warnings_in_lines(), _errors_in_lines():
            answer = super().invoke(ctx)
            sys.stdout.flush()  # a full disk is noticed here, and not when the interpreter ends
            return answer


@contextmanager
def _errors_in_lines() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        terminal.silence()
        raise SystemExit(_SIGPIPE) from None  # nobody reads on, as after `| head`
    except OSError as error:
        if not isinstance(error, CoxError) and error.filename is None and error.errno in _FULL:
            terminal.silence()
            raise click.ClickException(f"cannot write the output: {error.strerror}") from error
        raise click.ClickException(terminal.sentence(error)) from error
    except CoxError as error:
        raise click.ClickException(terminal.sentence(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # as a shell tells of a program that SIGINT ended


@click.group("cox", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cox")
def main() -> None:
    """Look at directories of runs, compare them, and take care of them.

    A PATH is a folder of runs, and this directory if left out; a RUN is the path of a run, of which the
    beginning of its name is enough. In a pipe, tables are CSV with a header; --json prints JSON.
    """
