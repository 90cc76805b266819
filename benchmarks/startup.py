"""How long a program waits for cox: `import cox`, and the first row that is safe."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Contestant, take_turns
from benchmarks.processes import until_word
from benchmarks.report import Report, Target, ratio, seconds


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many processes of each kind are started."""

    rounds: int


SIZES = {"full": Sizes(25), "quick": Sizes(5), "tiny": Sizes(1)}

_SAY = "\nprint('there', flush=True)"
_FIRST_ROW = """
import sys
from cox import Store
store = Store(sys.argv[1], 'run')
table = store.add_table('results', {'step': int, 'loss': float})
table.append_row({'step': 0, 'loss': 2.31})"""
#: A store left open until the process ends is folded then; this leaves the journal as a kill would.
_GONE = "\nimport os; os._exit(0)"
_PROGRAMS = {
    "bare Python": _SAY,
    "import cox": "import cox" + _SAY,
    "import cox; cox.Store": "import cox; cox.Store" + _SAY,
    "cox: the first durable row": _FIRST_ROW + _SAY + _GONE,
    "cox: a row, closed and folded": _FIRST_ROW + "\nstore.close()" + _SAY,
    "import numpy": "import numpy" + _SAY,
    "import pandas, tables": "import pandas, tables" + _SAY,
}


def run(sizes: Sizes, folder: Path) -> Iterator[Report]:
    """Measure fresh processes, from their start to the moment they say so."""
    runs = folder / "runs"
    contestants = [
        Contestant(
            name,
            functools.partial(_start, program, str(runs)),
            settle=lambda: shutil.rmtree(runs, ignore_errors=True),
        )
        for name, program in _PROGRAMS.items()
    ]
    take_turns(contestants, sizes.rounds)
    found = {one.name: one for one in contestants}
    bare, heavy = found["bare Python"], found["import pandas, tables"]
    report = Report(
        "From the start of a process",
        ["", "median", "over bare Python", "against import pandas, tables"],
        notes=["Modules are compiled, files cached: a process like it ran just before."],
    )
    for one in contestants:
        over = one.median - bare.median
        shown = seconds(over) if over > 0 else "–"
        report.rows.append([one.name, seconds(one.median), shown, ratio(one.times_slower_than(heavy))])
    more = 1000 * (found["import cox"].median - bare.median)
    report.targets = [
        Target("import cox over bare Python", more, 50, unit=" ms"),
        Target(
            "first durable row against import pandas, tables",
            found["cox: the first durable row"].times_slower_than(heavy),
            1,
        ),
    ]
    yield report


def _start(program: str, argument: str, _: int) -> None:
    until_word(program, argument)
