"""`cox` on the command line: one small module for each command."""

from __future__ import annotations

import click

from cox import __version__
from cox.cli.repair import repair
from cox.cli.trust import trust
from cox.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cox")
def main() -> None:
    """Look after directories of runs."""


main.add_command(repair)
main.add_command(trust)
main.add_command(verify)
