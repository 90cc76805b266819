"""Timing: contestants take turns, and are compared round by round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]


def nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class Contestant:
    """One way to do the job.

    Attributes:
        name: What the table calls it.
        call: Does the job once, for one argument.
        calls: How many times it is called in a round.
        prepare: Gives the arguments of a round's calls. Each is made off the clock, just before its call.
        settle: Called after each round, off the clock: flushes queues and removes files, so that
            nothing runs on into the next contestant's turn.
        every: Takes part in every n-th round only, for what takes long.
        rounds: Seconds of each call, by round.
    """

    name: str
    call: Callable[[Any], object]
    calls: int = 1
    prepare: Callable[[int], Iterable[Any]] = range
    settle: Callable[[], object] = nothing
    every: int = 1
    rounds: dict[int, Times] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Seconds of the call in the middle."""
        return self.quantile(0.5)

    def quantile(self, q: float) -> float:
        """Seconds that the share `q` of the calls stays below."""
        return float(np.quantile(np.concatenate([*self.rounds.values()]), q))

    def times_slower_than(self, other: Contestant) -> float:
        """The median, over the rounds, of the ratio of both medians in that round.

        A machine's speed drifts; within a round it is nearly the same for both.
        """
        both = self.rounds.keys() & other.rounds.keys()
        ratios = [np.median(self.rounds[number]) / np.median(other.rounds[number]) for number in both]
        return float(np.median(ratios))


def take_turns(contestants: Sequence[Contestant], rounds: int, *, warm_up: int = 1) -> None:
    """Let each contestant run once a round, in an order that moves on from round to round.

    Args:
        contestants: Who takes part; their `rounds` are filled.
        rounds: How many.
        warm_up: How many go before them, and do not count.
    """
    clock = clock_cost()
    for number in range(-warm_up, rounds):
        first = number % len(contestants)
        for contestant in [*contestants[first:], *contestants[:first]]:
            if number % contestant.every:
                continue
            arguments = contestant.prepare(contestant.calls)
            gc.collect()
            times = np.maximum(time_calls(contestant.call, arguments) - clock, 1e-9)
            contestant.settle()
            if number >= 0:
                contestant.rounds[number] = times


def time_calls(call: Callable[[Any], object], arguments: Iterable[Any]) -> Times:
    """Seconds of each call, including what reading the clock costs."""
    now = time.perf_counter_ns
    taken = []
    for argument in arguments:
        start = now()
        call(argument)
        taken.append(now() - start)
    return np.array(taken, dtype=np.float64) / 1e9


def clock_cost() -> float:
    """Seconds that pass between two readings of the clock."""
    now = time.perf_counter_ns
    taken = []
    for _ in range(5000):
        start = now()
        taken.append(now() - start)
    return float(np.median(taken)) / 1e9
