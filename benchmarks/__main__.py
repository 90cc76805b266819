"""The command line of the benchmarks."""

from __future__ import annotations

import importlib
import logging
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import report

SUBJECTS = ("append", "tensorboard", "collect", "collection", "objects", "startup", "viewing")


@click.command(help=f"Measure cox against floors and peers: {', '.join(SUBJECTS)}; all if none is named.")
@click.argument("subjects", nargs=-1, type=click.Choice(SUBJECTS), metavar="[SUBJECTS]...")
@click.option("--quick", is_flag=True, help="Less of everything: all subjects in under a minute.")
@click.option("--tiny", is_flag=True, help="Next to nothing: it only shows that the benchmarks run.")
@click.option("--markdown", is_flag=True, help="Print Markdown, as in the README.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the data goes; it is removed at the end. By default the system's temporary directory.",
)
def main(subjects: tuple[str, ...], quick: bool, tiny: bool, markdown: bool, directory: Path | None) -> None:
    """Run subjects one after the other."""
    logging.getLogger("cox").setLevel(logging.WARNING)
    console = Console()
    if not console.is_terminal:
        console.width = 120
    size = "tiny" if tiny else "quick" if quick else "full"
    print(report.machine(), end="\n\n", flush=True)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    for name in subjects or SUBJECTS:
        subject: Any = importlib.import_module(f"benchmarks.{name}")
        with tempfile.TemporaryDirectory(prefix=f"cox-bench-{name}-", dir=directory) as folder:
            for found in subject.run(subject.SIZES[size], Path(folder)):
                if markdown:
                    print(found.markdown(), flush=True)
                else:
                    found.print(console)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
