"""What a benchmark found, as a table on the terminal or in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

_PACKAGES = ("numpy", "pandas", "pyarrow", "tables", "h5py", "tensorboardX", "torch")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that was promised.

    Attributes:
        what: The figure, in words.
        value: What was measured.
        limit: What it should be at most, or at least.
        at_least: Which of both.
        unit: What stands behind the numbers.
    """

    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "×"

    @property
    def holds(self) -> bool:
        """Whether the promise was kept this time."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        said = "holds" if self.holds else "MISSED"
        limit = f"{self.limit:g}{self.unit}"
        return f"{self.what}: {digits(self.value)}{self.unit} (target {sign} {limit}: {said})"


@dataclass(slots=True)
class Report:
    """One table, with what it was measured against.

    Attributes:
        title: The question.
        columns: Headings; the first column is text, the others are numbers.
        rows: Cells as they are shown.
        targets: The promises that the table answers for.
        notes: How it was measured.
    """

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def print(self, console: Console) -> None:
        """Show it on a terminal."""
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(table, markup=False)
        for target in self.targets:
            console.print(f"  {target}", style="" if target.holds else "bold red", markup=False)
        for note in self.notes:
            console.print(f"  {note}", style="dim", markup=False)
        console.print()

    def markdown(self) -> str:
        """The same as Markdown."""
        lines = [f"**{self.title}**", "", _line(self.columns)]
        lines.append(_line(["---", *["---:"] * (len(self.columns) - 1)]))
        lines += [_line(row) for row in self.rows]
        lines += ["", *(f"- {target}" for target in self.targets), *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def machine() -> str:
    """What it was measured on, in a sentence."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    cpus = os.cpu_count() or 1
    system = f"{platform.system()} {platform.machine()}, {cpus} CPU{'s' if cpus > 1 else ''}"
    return f"Python {platform.python_version()} on {system}; {', '.join(found)}."


def seconds(value: float) -> str:
    """A duration: '3.42 µs', '17.1 ms'."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{value / 1e-9:.0f} ns"


def ratio(value: float) -> str:
    """A ratio: '3.42×'."""
    return f"{digits(value)}×"


def size(count: float) -> str:
    """A number of bytes: '51.0 B', '2.40 MB'."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{digits(count / scale)} {unit}"
    return f"{digits(count)} B"


def digits(value: float) -> str:
    """A number with as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
