"""Which journals belong to a run as it is now, and in which order they go on.

A directory may hold files of two lives of a run: a backup was put back, two copies went on and were merged, a
run was begun anew under an old name beside journals that a copying program had left. Sequence numbers alone
cannot tell, because each life counts from 0. So the store file says which journals are in it, a journal says
which run it is of and which journals it continues, and what follows from neither is never applied.

Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cox.storage.journal.reading import Journal


class Applied(NamedTuple):
    """A journal that belongs to the run.

    Attributes:
        journal: It.
        stop: The sequence number of the first record that does not: another journal goes on there.
    """

    journal: Journal
    stop: int


class Foreign(NamedTuple):
    """A file of which something belongs to another life of the run.

    Attributes:
        path: The file.
        problem: What is the matter, as a sentence.
        writer: Whose journal it is; None for the store file.
    """

    path: Path
    problem: str
    writer: str | None


@dataclass(slots=True)
class Writer:
    """What belongs to one writer of a run.

    Attributes:
        applied: Journals with records that are not in the store file, in order.
        folded: Journals that are in the store file, and that it does not name: of format 1.
        foreign: Those that belong to another life.
    """

    applied: list[Applied] = field(default_factory=list)
    folded: list[Journal] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)

    def leave_out(self, log: Journal, why: str) -> None:
        """Count a journal among the foreign ones."""
        problem = f"journal {log.path.name} belongs to another life of the run, and is not applied: {why}"
        self.foreign.append(Foreign(log.path, problem, log.writer))


def choose_id(said: str | None, stored: str | None, logs: Iterable[Journal]) -> str | None:
    """The id of a run whose files may name several.

    Args:
        said: The id in `run.json`.
        stored: That in the store file.
        logs: The journals.

    A `run.json` is believed if rows bear it out: those of the store file, or of a journal that begins a life.
    """
    logs = [log for log in logs if not log.is_empty]
    headers = [log.header for log in sorted(logs, key=lambda log: (-log.size, log.salt)) if log.header]
    if said is not None:
        borne_out = stored == said or any(header.run == said and not header.after for header in headers)
        if borne_out or (stored is None and any(header.run == said for header in headers)):
            return said
    return stored or (headers[0].run if headers else said)


def select(run_id: str | None, state: dict[str, Any], logs: list[Journal], own: Collection[int]) -> Writer:
    """Tell what of a writer's journals belongs to the run.

    Args:
        run_id: The id of the run.
        state: What the store file says of the writer.
        logs: The writer's journals.
        own: The salts of journals that this very process wrote: where two exclude each other, these stay.
    """
    writer = Writer()
    tree = _Tree(writer, state)
    for log in sorted(logs, key=lambda log: (log.first_seq, log.salt)):
        if log.header is not None and log.header.run != run_id:
            writer.leave_out(log, f"it is of run {log.header.run}, and this is run {run_id}")
        elif not log.is_empty:
            tree.add(log)
    tree.choose(frozenset(own))
    return writer


@dataclass(slots=True)
class _Node:
    """A journal that may belong to the run, if those that it follows do.

    Attributes:
        log: The journal.
        parent: The one that it follows; None for one that follows the store file.
        start: Where it takes over from that.
    """

    log: Journal
    parent: _Node | None
    start: int

    def path(self) -> list[_Node]:
        """This one and all that it follows, from the store file on."""
        nodes: list[_Node] = []
        node: _Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class _Tree:
    """The journals of one writer, each after the one that it follows."""

    def __init__(self, writer: Writer, state: dict[str, Any]) -> None:
        self._writer = writer
        self._seq: int = state["seq"]
        journals = state.get("journals", [])
        self._head: int | None = journals[-1][0] if journals else None
        self._folded: dict[int, int] = dict([*state.get("emptied", []), *journals])
        self._nodes: dict[int, _Node] = {}

    def add(self, log: Journal) -> None:
        """Add a journal; those with lower sequence numbers are there."""
        end = self._folded.get(log.salt)
        if end is not None and log.end_seq <= end:
            return  # it is in the store file
        if log.salt == self._head:
            self._nodes[log.salt] = _Node(log, None, self._seq)
        elif end is not None:
            self._writer.leave_out(log, f"it goes on after record {end}, where the run went on without it")
        elif log.header is None:
            self._add_nameless(log)
        else:
            self._add(log, log.header.after)

    def _add(self, log: Journal, after: Iterable[tuple[int, int]]) -> None:
        for salt, end in reversed([*after]):
            if salt in self._nodes:
                self._nodes[log.salt] = _Node(log, self._nodes[salt], end)
                return
            if salt == self._head and end >= self._seq:
                self._nodes[log.salt] = _Node(log, None, end)
                return
            if salt in self._folded:
                break
        else:
            if self._head is None and log.first_seq >= self._seq:
                self._nodes[log.salt] = _Node(log, None, self._seq)
                return
        self._writer.leave_out(log, "it does not follow what is in the store file")

    def _add_nameless(self, log: Journal) -> None:
        """Add a journal that does not say what it follows: of format 1, or its header is damaged."""
        if log.end_seq <= self._seq:
            self._writer.folded.append(log)
            return
        before = [node for node in self._nodes.values() if node.log.end_seq <= log.first_seq]
        if before:
            parent = max(before, key=lambda node: (node.log.end_seq, node.log.salt))
            self._nodes[log.salt] = _Node(log, parent, log.first_seq)
        elif self._head is None or log.first_seq >= self._seq:
            self._nodes[log.salt] = _Node(log, None, self._seq)
        else:
            self._writer.leave_out(log, "other records of the same numbers are in the store file")

    def choose(self, own: frozenset[int]) -> None:
        """Of journals that exclude each other, keep the ones that go on furthest."""
        parents = {node.parent.log.salt for node in self._nodes.values() if node.parent is not None}
        ends = [node for salt, node in self._nodes.items() if salt not in parents or salt in own]
        if not ends:
            return
        best = max(ends, key=lambda node: (node.log.salt in own, node.log.end_seq, node.log.salt))
        path = best.path()
        stops = [*(node.start for node in path[1:]), best.log.end_seq]
        for node, stop in zip(path, stops, strict=True):
            self._writer.applied.append(Applied(node.log, min(stop, node.log.end_seq)))
            if stop < node.log.end_seq:
                self._writer.leave_out(
                    node.log, f"from record {stop} on, where journal {best.log.path.name} goes on instead"
                )
        chosen = {node.log.salt for node in path}
        for salt, node in self._nodes.items():
            if salt not in chosen:
                self._writer.leave_out(
                    node.log, f"it and {best.log.path.name} go on from the same place; the latter is kept"
                )
