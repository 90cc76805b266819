"""`python -m tests.mutation`: apply each mutant to a copy of the checkout, and have its test fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.mutation.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
PYTEST = ["-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
#: Of tests that ran, and failed, as pytest says it.
FAILED = 1


def copy_of_the_checkout(folder: Path) -> Path:
    """What the tests need, without environments and caches."""
    target = folder / "checkout"
    target.mkdir(parents=True)
    for name in ("cox", "tests", "examples", "pyproject.toml", "README.md", "docs"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "stores"))
        else:
            shutil.copy(source, target / name)
    return target


def run_test(checkout: Path, test: str, seconds: int) -> tuple[int | None, str]:
    """Exit status and output of one test, run on a copy; no status if it did not end in time."""
    log = checkout.parent / "output"
    with (
        log.open("wb") as output,  # a pipe would be read for as long as any process of the test lives
        subprocess.Popen(
            [sys.executable, *PYTEST, test],
            cwd=checkout,
            # PYTHONPATH: the copy, whatever is installed in the environment
            env={
                **os.environ,
                "PYTHONPATH": os.fspath(checkout),
                "HYPOTHESIS_STORAGE_DIRECTORY": ".hypothesis",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        status: int | None = None
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):  # programs that it started may have outlived it
                os.killpg(process.pid, signal.SIGKILL)
    return status, log.read_text(encoding="utf-8", errors="replace")


def apply(mutant: Mutant, checkout: Path) -> None:
    """Take a guard away.

    Raises:
        click.ClickException: The code is not what the table says any more.
    """
    path = checkout / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise click.ClickException(
            f"{mutant.name}: {mutant.file} has {source.count(mutant.old)} places like\n{mutant.old}\n"
            "bring tests/mutation/mutants.py up to date"
        )
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")


def fate(mutant: Mutant) -> tuple[Mutant, str, float, str]:
    """How its test notices a mutant, or "" if it does not; the seconds; the test's output."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cox-mutant-") as folder:
        checkout = copy_of_the_checkout(Path(folder))
        apply(mutant, checkout)
        status, output = run_test(checkout, mutant.test, mutant.seconds)
    # all other ends (the test is not found, or not collected) are a mistake in the table
    verdict = {FAILED: "by failing", None: "by never ending"}.get(status, "")
    return mutant, verdict, time.monotonic() - start, f"pytest ended with {status}\n{output[-2000:]}"


def check_sound(mutants: list[Mutant], console: Console) -> None:
    """Run each test of the table on the code as it is; ends the program if one fails."""
    tests = {mutant.test: mutant.seconds for mutant in mutants}
    with tempfile.TemporaryDirectory(prefix="cox-mutant-") as folder:
        checkout = copy_of_the_checkout(Path(folder))
        for test, seconds in sorted(tests.items()):
            start = time.monotonic()
            status, output = run_test(checkout, test, seconds)
            verdict = "passes" if status == 0 else "FAILS"
            console.print(f"{verdict} in {time.monotonic() - start:.0f} s: {test}", highlight=False)
            if status != 0:
                sys.exit(output)


@click.command(help="Take guards away one at a time; exit status 1 if a loss goes unnoticed.")
@click.argument("names", nargs=-1)
@click.option("--jobs", default=2, show_default=True, help="How many at once.")
@click.option("--list", "listing", is_flag=True, help="Print the table in Markdown, and run nothing.")
@click.option("--sound", is_flag=True, help="Run the tests of the table on the code as it is: all must pass.")
def main(names: tuple[str, ...], jobs: int, listing: bool, sound: bool) -> None:
    """Run the table, or the named entries of it."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if unknown := set(names) - {mutant.name for mutant in MUTANTS}:
        raise click.ClickException(f"no mutant {sorted(unknown)}; there are {[m.name for m in MUTANTS]}")
    if listing:
        print("| what is taken away | where | noticed by |\n|---|---|---|")
        for mutant in chosen:
            print(f"| {mutant.name} | `{mutant.file}` | `{mutant.test.rpartition('/')[2]}` |")
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    if sound:
        check_sound(chosen, console)
        return
    table = Table("guard taken away", "in", "noticed by", "", "s")
    unnoticed = []
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, verdict, seconds, output in pool.map(fate, chosen):
            table.add_row(
                mutant.name, mutant.file, mutant.test.rpartition("/")[2], verdict or "NOT", f"{seconds:.0f}"
            )
            if not verdict:
                unnoticed.append(f"{mutant.name}: {output}")
    console.print(table)
    if unnoticed:
        sys.exit("\n".join(unnoticed))
    console.print(f"{len(chosen)} mutants, all of them noticed")


if __name__ == "__main__":
    main(prog_name="python -m tests.mutation")
