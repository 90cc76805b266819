"""Following a run while it is written: its new rows, those that were dropped, how it ended. Only reads."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cox.errors import RunNotFoundError
from cox.storage import rows, snapshot
from cox.storage.rows import Row
from cox.storage.scan import State, state_of
from cox.storage.status import CRASHED, FAILED, FINISHED, UNKNOWN, Status, status_of

if TYPE_CHECKING:
    from cox.storage.columns import Array, TableData
    from cox.storage.layout import RunLayout
    from cox.storage.snapshot import Snapshot

#: Seconds between two looks at a run.
PAUSE = 0.5
#: Seconds for which a run must look crashed, and as long as its process lives. While a run is being closed it
#: looks so, because it gives up its claim before it says that it ended.
GRACE, GRACE_OF_THE_LIVING = 1.0, 60.0
#: How many rows are remembered, to find out whether they were rewritten.
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows that were not there before, in order of writing.

    Attributes:
        rank: Who wrote them; None for no rank. Between the rows of two ranks there is no order.
        names: Their columns.
        rows: The rows.
    """

    rank: int | None
    names: list[str]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Rewound:
    """Rows that were given are gone: those of a rank from number `row` on."""

    rank: int | None
    row: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The table is not there yet; `tables` are. It comes once."""

    tables: list[str]


@dataclass(frozen=True, slots=True)
class Ended:
    """The run ended.

    Attributes:
        status: How it is.
        lacking: If the table never came, the run as it is.
    """

    status: Status
    lacking: Snapshot | None


Event = NewRows | Rewound | Waiting | Ended


@dataclass(slots=True)
class _Seen:
    """What was given of one rank's rows: how many there are, and the last of them as text."""

    count: int = 0
    kept: list[str] = field(default_factory=list)

    @property
    def first_kept(self) -> int:
        return self.count - len(self.kept)


class Follower:
    """Gives a table's rows as they come. Looks again only where a file of the run has changed.

    Args:
        run: The run.
        table: The table: its name, or what finds it in a snapshot, which gives None until it is there.
        most: How many of the rows that are there at first are given of each rank; all without.
        columns: Some columns; all without.
    """

    def __init__(
        self,
        run: RunLayout,
        table: str | Callable[[Snapshot], str | None],
        *,
        most: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._run, self._most, self._columns = run, most, columns
        self._table = table if isinstance(table, str) else None
        self._find = None if isinstance(table, str) else table
        self._names: list[str] = []
        self._seen: dict[int | None, _Seen] = {}
        self._waits = False
        self._before: State | None = None
        self._lost = 0.0

    def events(self, pause: float = PAUSE) -> Iterator[Event]:
        """Look until the run ends, `pause` seconds apart. The last event is `Ended`.

        Raises:
            RunNotFoundError: It is not a run, or is gone.
            ColumnNotFoundError: The table has no such column.
        """
        while True:
            for event in self.look():
                yield event
                if isinstance(event, Ended):
                    return
            time.sleep(pause)

    def look(self) -> list[Event]:
        """Return what is new since the last look, without waiting; after the end, `Ended` again."""
        status = status_of(self._run)  # first: what was written before the end is still to be read
        ended = self._is_over(status)
        state = state_of(os.fspath(self._run.root))
        events: list[Event] = []
        if state != self._before or ended:
            now = self._snapshot(ended=ended)
            table = None if now is None else self._found(now)
            events += [] if now is None else self._news(now, table, ended=ended)
            if ended:
                events.append(Ended(status, now if table is None and not self._seen else None))
        self._before = state
        return events

    def _is_over(self, status: Status) -> bool:
        """Whether a run has ended; one that looks crashed, only if it has looked so for a while."""
        if status.state in (FINISHED, FAILED):
            return True
        if status.state not in (CRASHED, UNKNOWN):
            self._lost = 0.0
            return False
        self._lost = self._lost or time.monotonic()
        return time.monotonic() - self._lost > _grace(status)

    def _snapshot(self, *, ended: bool) -> Snapshot | None:
        try:
            now = snapshot.read(self._run, tables=None if self._table is None else [self._table])
        except RunNotFoundError:
            if ended or not self._run.root.is_dir():
                raise
            return None  # it has only just begun
        now.warn(self._run.root.name)
        return now

    def _found(self, now: Snapshot) -> TableData | None:
        if self._table is None and self._find is not None:
            self._table = self._find(now)
        return None if self._table is None else now.tables.get(self._table)

    def _news(self, now: Snapshot, table: TableData | None, *, ended: bool) -> Iterator[Event]:
        if table is not None:
            yield from self._new_rows(now, table)
        elif self._seen:  # the table is being begun anew
            if any(seen.count for seen in self._seen.values()):
                yield Rewound(None, 0)
            self._seen = {rank: _Seen() for rank in self._seen}
        elif not ended and not self._waits:
            self._waits = True
            yield Waiting(list(now.tables))

    def _new_rows(self, now: Snapshot, table: TableData) -> Iterator[Event]:
        names = rows.names_of(table, self._columns)
        for rank, places in now.by_rank(table.name):
            seen = self._seen.get(rank)
            if seen is None:
                skipped = 0 if self._most is None else max(0, len(places) - self._most)
                seen = self._seen[rank] = _Seen(skipped)
            start = self._unchanged(seen, table, places)
            if start < seen.count:
                yield Rewound(rank, start)
            yield NewRows(rank, names, rows.rows_at(table, names, places[start:]))
            seen.count = len(places)
            seen.kept = list(map(repr, rows.rows_at(table, names, places[-_REMEMBERED:])))
        self._names = names

    def _unchanged(self, seen: _Seen, table: TableData, places: Array) -> int:
        """Up to which row there is what was given."""
        if any(name not in table.schema for name in self._names):  # the table was begun anew
            return 0
        left = min(seen.count, len(places))
        same = min(seen.first_kept, left)
        now = map(repr, rows.rows_at(table, self._names, places[same:left]))
        for was, is_now in zip(seen.kept, now, strict=False):
            if was != is_now:
                break
            same += 1
        return same


def _grace(status: Status) -> float:
    """How long a run may look crashed before it is called so."""
    if status.pid is None or status.host != socket.gethostname():
        return GRACE
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return 0.0
    except OSError:  # another user's
        pass
    return GRACE_OF_THE_LIVING
