"""What a loss of power may leave on a disk: a session's trace, and every order in which a disk may take it.

A trace is each write, cut, new name, removal and sync of a session, in order (see `recorder`). Whatever was
not synced when the power went may be on the disk or not, each for itself, as ALICE (Pillai et al., OSDI 2014)
and CrashMonkey (Mohan et al., OSDI 2018) have it:

* an fsync of a file keeps its bytes and its length, and says nothing about its name;
* an fsync of a directory keeps the names in it, and says nothing about what they name, nor about the
  directory's own name in its parent;
* a rename, link or removal is there as a whole or not at all; data may be there in part, and a file may have
  its length before its bytes, so that zeros or another file's old bytes are found in their place.

No file system does all of this. Each does some of it, and a promise that holds here holds on all of them.
Nothing here knows cox.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = 0


@dataclass(frozen=True)
class Names:
    """Names that appear or go, all at once: (directory, name, what it names from now on or None)."""

    what: str
    changes: tuple[tuple[int, str, int | None], ...]


@dataclass(frozen=True)
class Data:
    """Bytes written into a file."""

    what: str
    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Size:
    """A file cut off, or made longer."""

    what: str
    inode: int
    size: int


@dataclass(frozen=True)
class Sync:
    """A file's bytes, or a directory's names, are safe from now on."""

    what: str
    inode: int


@dataclass(frozen=True)
class Mark:
    """What the session says of itself. Changes nothing."""

    what: Any


Event = Names | Data | Size | Sync | Mark

#: What may become of an event that was not synced, beside taking place.
LOST, ZEROED, HALVED, HOLED, STALE = "lost", "zeroed", "half", "with a hole", "old bytes"
_OF_DATA = (LOST, ZEROED, HALVED, HOLED, STALE)
Fates = Mapping[int, str]

_PAGE = 4096


class Tree:
    """Directories and files, as a file system keeps them: names apart from what they name."""

    def __init__(self) -> None:
        self.directories: dict[int, dict[str, int]] = {ROOT: {}}
        self.files: dict[int, bytearray] = {}

    @classmethod
    def of(cls, path: Path) -> Tree:
        """What lies in a real directory."""
        tree = cls()
        tree._scan(path, ROOT)
        return tree

    def _scan(self, path: Path, inode: int) -> None:
        for child in sorted(path.iterdir()):
            number = len(self.directories) + len(self.files)
            self.directories[inode][child.name] = number
            if child.is_dir():
                self.directories[number] = {}
                self._scan(child, number)
            else:
                self.files[number] = bytearray(child.read_bytes())

    def copy(self) -> Tree:
        """Another one, the same."""
        made = Tree()
        made.directories = {inode: dict(names) for inode, names in self.directories.items()}
        made.files = {inode: bytearray(data) for inode, data in self.files.items()}
        return made

    def apply(self, event: Event) -> None:
        """Have an event take place."""
        if isinstance(event, Names):
            for directory, name, inode in event.changes:
                if inode is None:
                    self.directories[directory].pop(name, None)
                else:
                    self.directories[directory][name] = inode
        elif isinstance(event, Data):
            self.write(event.inode, event.offset, event.data)
        elif isinstance(event, Size):
            file = self.files[event.inode]
            del file[event.size :]
            file.extend(bytes(event.size - len(file)))

    def write(self, inode: int, offset: int, data: bytes) -> None:
        """Put bytes into a file; what lies between its end and them reads as zeros."""
        file = self.files[inode]
        file.extend(bytes(max(0, offset - len(file))))
        file[offset : offset + len(data)] = data

    def contents(self) -> dict[str, bytes | None]:
        """Every file by its path, with its bytes; None for a directory."""
        found: dict[str, bytes | None] = {}

        def visit(inode: int, above: str) -> None:
            for name, child in sorted(self.directories[inode].items()):
                if child in self.files:
                    found[above + name] = bytes(self.files[child])
                else:
                    found[above + name] = None
                    visit(child, f"{above}{name}/")

        visit(ROOT, "")
        return found


def lay_out(contents: Mapping[str, bytes | None], folder: Path) -> None:
    """Make real directories and files of what `Tree.contents` returned."""
    folder.mkdir()
    for name, data in contents.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)
            if (
                Path(name).name == "secret"
            ):  # modes are not recorded, and one that others may read counts for none
                (folder / name).chmod(0o600)


@dataclass
class Trace:
    """What a session did to a directory, and what of it may be lost.

    Attributes:
        initial: What was there before, and is safe.
        events: What was done, in order.
    """

    initial: Tree
    events: list[Event] = field(default_factory=list)

    def moments(self) -> list[int]:
        """When to let the power go: right before each sync, and at the end; given as a number of events.

        Between two syncs the list of what may be lost only grows, so that all that could be found earlier
        can be found at the end of it, when more was promised.
        """
        return [at for at, event in enumerate(self.events) if isinstance(event, Sync)] + [len(self.events)]

    def marks(self, moment: int) -> list[Any]:
        """What the session had said by then."""
        return [event.what for event in self.events[:moment] if isinstance(event, Mark)]

    def pending(self, moment: int) -> list[int]:
        """The events whose effect is not safe by then."""
        synced: dict[int, int] = {}
        for at, event in enumerate(self.events[:moment]):
            if isinstance(event, Sync):
                synced[event.inode] = at
        found = []
        for at, event in enumerate(self.events[:moment]):
            if isinstance(event, Names):
                inodes = [directory for directory, _, _ in event.changes]
            elif isinstance(event, (Data, Size)):
                inodes = [event.inode]
            else:
                continue
            if all(synced.get(inode, -1) < at for inode in inodes):
                found.append(at)
        return found

    def tree(self, moment: int, fates: Fates) -> Tree:
        """What is found if the power goes at a moment and these events have these fates."""
        tree = self.initial.copy()
        for at, event in enumerate(self.events[:moment]):
            fate = fates.get(at)
            if fate is None:
                tree.apply(event)
            elif fate != LOST and isinstance(event, Data):
                tree.write(event.inode, event.offset, self._damaged(event, fate))
        return tree

    def _damaged(self, event: Data, fate: str) -> bytes:
        data = event.data
        if fate == ZEROED:
            return bytes(len(data))
        if fate == HALVED:
            return data[: len(data) // 2]
        if fate == HOLED:  # a page of it, or the middle of less than that
            size = min(_PAGE, len(data) // 3)
            start = len(data) // 2 // size * size if size else 0
            return data[:start] + bytes(size) + data[start + size :]
        old = b"".join(
            other.data for other in self.events if isinstance(other, Data) and other.inode != event.inode
        )
        old *= len(data) // max(1, len(old)) + 1
        return old[: len(data)] or bytes(len(data))

    def usual_fates(self, moment: int) -> Iterator[Fates]:
        """The worst that is known of real file systems, first: all or nothing, of names or of data."""
        pending = self.pending(moment)
        data = [at for at in pending if isinstance(self.events[at], Data)]
        names = [at for at in pending if isinstance(self.events[at], Names)]
        yield dict.fromkeys(pending, LOST)
        yield {}
        for fate in (LOST, ZEROED, HALVED):
            yield dict.fromkeys(data, fate)
        yield dict.fromkeys(names, LOST)

    def each_alone(self) -> Iterator[tuple[int, Fates]]:
        """Each event for itself, when it may first be lost, when it may last be, and half-way between."""
        when: dict[int, list[int]] = {}
        for moment in self.moments():
            for at in self.pending(moment):
                when.setdefault(at, []).append(moment)
        for at, moments in when.items():
            event = self.events[at]
            for moment in sorted({moments[0], moments[len(moments) // 2], moments[-1]}):
                yield moment, {at: LOST}
                if isinstance(event, Data) and len(event.data) > _PAGE:
                    yield moment, {at: HOLED}

    def single_fates(self, moment: int) -> Iterator[Fates]:
        """All but one event, only one event, the first few events: for each."""
        pending = self.pending(moment)
        for number, at in enumerate(pending):
            for fate in _OF_DATA if isinstance(self.events[at], Data) else (LOST,):
                yield {at: fate}
            yield dict.fromkeys((other for other in pending if other != at), LOST)
            yield dict.fromkeys(pending[number:], LOST)

    def random_fates(self, moment: int, choose: random.Random) -> Fates:
        """Any fate for any event; half of the time with the names of a directory going in order."""
        pending = self.pending(moment)
        share = choose.choice((0.15, 0.5, 0.85))
        fates = {
            at: choose.choice(_OF_DATA) if isinstance(self.events[at], Data) else LOST
            for at in pending
            if choose.random() < share
        }
        if choose.random() < 0.5:
            self._put_in_order(pending, fates, choose)
        return fates

    def _put_in_order(self, pending: list[int], fates: dict[int, str], choose: random.Random) -> None:
        """Lose the last names of each directory, as a file system with a journal of its own does."""
        by_directory: dict[int, list[int]] = {}
        for at in pending:
            event = self.events[at]
            if isinstance(event, Names):
                fates.pop(at, None)
                by_directory.setdefault(event.changes[-1][0], []).append(at)
        for listed in by_directory.values():
            fates.update(dict.fromkeys(listed[choose.randint(0, len(listed)) :], LOST))

    def describe(self, moment: int, fates: Fates) -> str:
        """A moment and fates, for a person."""
        after = next((e for e in reversed(self.events[:moment]) if not isinstance(e, Mark)), None)
        lines = [f"  {at}: {_describe(self.events[at])}: {fate}" for at, fate in sorted(fates.items())]
        lost = "\n".join(lines) or "  nothing"
        return f"power lost after event {moment} ({_describe(after)}); of what was not synced:\n{lost}"


def _describe(event: Event | None) -> str:
    if isinstance(event, Data):
        return f"write {event.what} at {event.offset}, {len(event.data)} bytes"
    if isinstance(event, Size):
        return f"cut {event.what} to {event.size}"
    if isinstance(event, Sync):
        return f"sync {event.what}"
    return str(event.what) if event is not None else "nothing"


def losses(trace: Trace, samples: int, seed: int) -> Iterator[tuple[int, Fates]]:
    """Moments and fates: the usual ones at every moment, each event for itself, then as many as asked for."""
    moments = trace.moments()
    for moment in moments:
        for fates in trace.usual_fates(moment):
            yield moment, fates
    yield from trace.each_alone()
    choose = random.Random(seed)
    singles = [(moment, fates) for moment in moments for fates in trace.single_fates(moment)]
    choose.shuffle(singles)
    for number in range(samples):
        if singles and number % 2 == 0:
            yield singles.pop()
        else:
            moment = choose.choice(moments)
            yield moment, trace.random_fates(moment, choose)
