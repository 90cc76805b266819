"""A row to a table and to TensorBoard at once, against add_scalar alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tensorboardX import SummaryWriter

from benchmarks.measure import Contestant, take_turns
from benchmarks.report import Report, ratio, seconds
from cox import Store

SCHEMA = {"loss": float, "accuracy": float, "lr": float}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many turns each contestant has, and how many rows it writes in one."""

    rounds: int
    calls: int


SIZES = {"full": Sizes(40, 200), "quick": Sizes(10, 100), "tiny": Sizes(2, 5)}


def run(sizes: Sizes, folder: Path) -> Iterator[Report]:
    """Measure three scalars a row."""
    with Store(folder, "run") as store, SummaryWriter(str(folder / "alone")) as alone:
        both, plain = store.add_table("both", SCHEMA), store.add_table("plain", SCHEMA)

        def log_both(row: dict[str, float]) -> None:
            store.log_table_and_tb("both", row)
            both.flush_row()

        steps = count()

        def add_scalars(row: dict[str, float]) -> None:
            step = next(steps)
            for name, value in row.items():
                alone.add_scalar(f"results/{name}", value, step)

        contestants = [
            Contestant("3 × add_scalar", add_scalars, settle=alone.flush),
            Contestant("log_table_and_tb + flush_row", log_both, settle=store.writer.flush),
            Contestant("append_row of the same", plain.append_row),
        ]
        for contestant in contestants:
            contestant.calls, contestant.prepare = sizes.calls, _rows
        take_turns(contestants, sizes.rounds)
    report = Report(
        "3 scalars to a table and TensorBoard",
        ["", "median", "p99", "against add_scalar"],
        notes=["Per row. tensorboardX puts events into a queue, and its thread writes them."],
    )
    report.rows = [
        [
            one.name,
            seconds(one.median),
            seconds(one.quantile(0.99)),
            ratio(one.times_slower_than(contestants[0])),
        ]
        for one in contestants
    ]
    yield report


def _rows(calls: int) -> list[dict[str, float]]:
    return [{"loss": 1 / (1 + i), "accuracy": i / calls, "lr": 0.1 * 0.99**i} for i in range(calls)]
