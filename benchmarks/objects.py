"""A large array or state_dict in a row, against pickle.dump and torch.save of the same to a file."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dill
import numpy as np

from benchmarks.measure import Contestant, take_turns
from benchmarks.report import Report, Target, ratio, seconds
from cox import PICKLE, PYTORCH_STATE, Store


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many turns each contestant has, and the bytes of the object."""

    rounds: int
    size: int


SIZES = {"full": Sizes(25, 50_000_000), "quick": Sizes(5, 10_000_000), "tiny": Sizes(1, 10_000)}


def run(sizes: Sizes, folder: Path) -> Iterator[Report]:
    """Measure a numpy array, then a state_dict if there is torch."""
    array = np.random.default_rng(0).random(sizes.size // 8)
    yield _measure(
        sizes,
        folder,
        f"A numpy array of {sizes.size / 1e6:g} MB in a PICKLE cell",
        PICKLE,
        array,
        {
            "pickle.dump, protocol 5": functools.partial(_pickle, protocol=5),
            "pickle.dump, no protocol given": functools.partial(_pickle, protocol=None),
            "dill.dump": _dill,
        },
        limit=1.5,
    )
    if find_spec("torch") is None:
        return
    import torch

    width = int((sizes.size / 4 / 4) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    state = {f"layer{i}.weight": torch.rand(width, width, generator=generator) for i in range(4)}
    yield _measure(
        sizes,
        folder,
        f"A state_dict of {sizes.size / 1e6:g} MB in a PYTORCH_STATE cell",
        PYTORCH_STATE,
        state,
        {"torch.save": torch.save},
        limit=1.3,
    )


def _measure(
    sizes: Sizes,
    folder: Path,
    title: str,
    kind: str,
    value: Any,
    ways: dict[str, Callable[[Any, Path], object]],
    *,
    limit: float,
) -> Report:
    """Time `append_row({'value': value})` against each of `ways`; the first of them is the floor."""
    target = folder / "floor"
    with Store(folder, kind.strip("_")) as store:
        table = store.add_table("objects", {"value": kind})
        # each file is removed before the next one's turn: new pages cost the same for all
        contestants = [
            Contestant(name, _to(way, target), settle=lambda: target.unlink(missing_ok=True))
            for name, way in ways.items()
        ]
        cox = Contestant(
            f"cox append_row, {kind.strip('_').upper()}",
            lambda value: table.append_row({"value": value}),
            settle=lambda: _empty(Path(store.path) / ".table_objects"),
        )
        contestants.insert(1, cox)
        for contestant in contestants:
            contestant.prepare = lambda calls: [value] * calls
        take_turns(contestants, sizes.rounds)
    floor = contestants[0]
    report = Report(
        title,
        ["", "median", f"against {floor.name}"],
        targets=[Target(f"{cox.name} against {floor.name}", cox.times_slower_than(floor), limit)],
        notes=["Nobody syncs to the disk; cox writes under another name and renames."],
    )
    report.rows = [
        [one.name, seconds(one.median), ratio(one.times_slower_than(floor))] for one in contestants
    ]
    return report


def _to(way: Callable[[Any, Path], object], path: Path) -> Callable[[Any], object]:
    return lambda value: way(value, path)


def _pickle(value: Any, path: Path, *, protocol: int | None) -> None:
    with path.open("wb") as file:
        pickle.dump(value, file, protocol=protocol)


def _dill(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        dill.dump(value, file)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
