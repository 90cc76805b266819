"""`cox completion`: what a shell needs to complete commands, runs and tables."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, runs and tables.

    \b
    Put one of these lines into the file named after it:
      eval "$(cox completion bash)"         ~/.bashrc
      eval "$(cox completion zsh)"          ~/.zshrc
      cox completion fish | source          ~/.config/fish/config.fish
    """  # noqa: D301
    from click.shell_completion import get_completion_class

    from cox.cli import main

    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"this click knows nothing of {shell}")
    click.echo(complete(main, {}, "cox", "_COX_COMPLETE").source())
