"""Sending the points of a run that are gone to TensorBoard again: its tables have them.

TensorBoard's fast loader takes a step that is not beyond the one before for a restart, and forgets what
came from it on. So a gap in a curve is not filled from behind: all points from the gap on are sent again,
in one new file, and then leave the old ones, of which the originals are kept. Whoever is killed between the
two leaves curves that go back; so does a gap that was filled from behind. They are redrawn, too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cox import metadata
from cox.errors import RunNotFoundError
from cox.integrity.repair import Originals, held
from cox.objects.trust import Trust
from cox.storage import fs, layout, snapshot
from cox.storage.columns import Array, TableData
from cox.storage.curvefiles import event_files
from cox.storage.scan import is_run
from cox.tensorboard import summaries, tfrecords
from cox.tensorboard.eventfile import new_name

#: Value and time of a point, in seconds since 1970.
_Point = tuple[float, float]


def redraw(
    path: str | os.PathLike[str], *, from_nothing: bool = True, dry_run: bool = False
) -> dict[str, int]:
    """Send the rows of a run to TensorBoard again, as far as their points are not there any more.

    Columns that `log_table_and_tb` has sent are known by the points that are left: each stands at the number
    of a row, and has its value. A curve with any other point is somebody else's, and is left alone, as are
    those of tables whose rows were sent with a step.

    Args:
        path: The run's directory.
        from_nothing: Whether to send the numbers of all tables but the metadata, if the run has no point of
            any kind.
        dry_run: Whether only to tell what would be sent. Nothing is written then.

    Returns:
        How many points were missing of each tag that is drawn again: none, if its curve only went back.

    Raises:
        RunNotFoundError: It is no run.
        RunInUseError: A process is writing it.
        DamagedError: Its rows cannot be read.
        StorageError: The file system refused something.
    """
    run = layout.RunLayout(layout.absolute(path))
    if not is_run(run.root):
        raise RunNotFoundError(f"{run.root} is no run: it has no {layout.STORE_FILE}")
    lacking: Counter[str] = Counter()
    with contextlib.nullcontext() if dry_run else held(run):
        now = snapshot.read(run)
        rows = _rows_of(now)
        places = {*_places(run), *map(run.events_dir, rows)}
        drawn = {place: _Drawn(place) for place in places}
        is_new = not any(found.is_used for found in drawn.values())
        if is_new and not from_nothing:
            return {}
        originals = Originals(run)
        for rank, tables in rows.items():
            there = drawn[run.events_dir(rank)]
            again: dict[str, dict[int, _Point]] = {}
            for tag, wanted in _wanted(now, tables, there, is_new=is_new):
                points, missing = there.again(tag, wanted, is_new=is_new)
                if points:
                    again[tag] = points
                    lacking[tag] += missing
            if again and not dry_run:
                params = {} if rank or there.has_hparams else _params(run, now)
                _send(there.place, again, params, originals)
    return dict(lacking)


def _wanted(
    now: snapshot.Snapshot, tables: list[tuple[TableData, Array]], there: _Drawn, *, is_new: bool
) -> Iterator[tuple[str, dict[int, float]]]:
    """The tags of a directory, and the values that they should have, of the tables that are drawn by rows."""
    for table, rows in tables:
        is_left_out = table.name in there.stepped or (is_new and table.name == metadata.METADATA)
        if not is_left_out:
            yield from _points_of(now, table, rows)


class _Drawn:
    """What is in the event files of one directory.

    Args:
        place: The directory.

    Attributes:
        is_used: Whether there is anything to be seen.
        has_hparams: Whether the HParams tab knows the run.
        stepped: The tables of which rows were sent with a step of their own.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.is_used = self.has_hparams = False
        self.stepped: set[str] = set()
        self._points: dict[str, dict[int, _Point]] = defaultdict(dict)
        #: Of each tag the first step that comes again, or after one beyond it: there the curve goes back.
        self._back: dict[str, int] = {}
        last: dict[str, int] = {}
        for path in event_files(place):
            for data in tfrecords.contents(fs.read_bytes(path)):
                found = summaries.read(data)
                self.is_used |= bool(found.tags)
                self.has_hparams |= found.has_hparams
                if found.row is not None:
                    self.stepped.add(found.row[0])
                if found.purged_from is not None:
                    for tag, points in self._points.items():
                        for step in [step for step in points if step >= found.purged_from]:
                            del points[step]
                        last[tag] = max(points, default=-1)
                for tag, value in found.scalars:
                    if found.step <= last.get(tag, -1):
                        self._back[tag] = min(found.step, self._back.get(tag, found.step))
                    last[tag] = found.step
                    self._points[tag][found.step] = value, found.wall_time

    def again(self, tag: str, wanted: Mapping[int, float], *, is_new: bool) -> tuple[dict[int, _Point], int]:
        """The points of a tag to send again, and how many are missing.

        Args:
            tag: The tag.
            wanted: The values by step that it should have.
            is_new: Whether it does not matter that there is none yet.
        """
        there = self._points.get(tag, {})
        if not (is_new or self._is_of(there, wanted)):
            return {}, 0
        missing = wanted.keys() - there.keys()
        starts = [*missing, *([self._back[tag]] if tag in self._back else [])]
        if not starts:
            return {}, 0
        points: dict[int, _Point] = {}
        when = there[min(there)][1] if there else time.time()
        for step in sorted(wanted.keys() | there.keys()):
            value, when = there[step] if step in there else (wanted[step], when)
            points[step] = value, when
        return {step: point for step, point in points.items() if step >= min(starts)}, len(missing)

    @staticmethod
    def _is_of(there: Mapping[int, _Point], wanted: Mapping[int, float]) -> bool:
        """Whether points are those of a table's column, as far as they are there."""
        # one more than there are rows: sent by a process that was killed before it flushed the row
        beyond = [step for step in there if step not in wanted]
        if not there or len(beyond) > 1 or any(step < max(wanted, default=0) for step in beyond):
            return False
        both = [step for step in there if step in wanted]
        drawn = np.array([there[step][0] for step in both], dtype=np.float32)
        with np.errstate(over="ignore"):
            values = np.array([wanted[step] for step in both], dtype=np.float64).astype(np.float32)
        return np.array_equal(drawn, values, equal_nan=True)


def _params(run: layout.RunLayout, now: snapshot.Snapshot) -> dict[str, Any]:
    ranked = now.has_ranks(metadata.METADATA)
    return metadata.parameters(now.tables.get(metadata.METADATA), run, Trust(run), is_ranked=ranked)


def _places(run: layout.RunLayout) -> Iterator[Path]:
    """The directories of a run that have event files."""
    for path in [run.tensorboard_dir, *sorted(run.tensorboard_dir.glob("*/"))]:
        if not path.is_symlink() and event_files(path):
            yield path


def _rows_of(now: snapshot.Snapshot) -> dict[int | None, list[tuple[TableData, Array]]]:
    """The rows of each rank, table by table. Those of the first rank go on where a sole writer stopped."""
    found: dict[int | None, list[tuple[TableData, Array]]] = {}
    for name, table in now.tables.items():
        own: dict[int | None, Array] = {}
        for rank, rows in now.by_rank(name):
            key = rank or None
            own[key] = np.sort(np.concatenate([own[key], rows])) if key in own else rows
        for key, rows in own.items():
            found.setdefault(key, []).append((table, rows))
    return found


def _points_of(
    now: snapshot.Snapshot, table: TableData, rows: Array
) -> Iterator[tuple[str, dict[int, float]]]:
    """The tag of each column of numbers, and its values by the number of the row among these."""
    for column in table.schema:
        if not column.traits.is_number or (column.name == layout.RANK_COLUMN and now.has_ranks(table.name)):
            continue
        values, missing = table.column(column)
        yield (
            f"{table.name}/{column.name}",
            {
                step: float(values[row])
                for step, row in enumerate(rows.tolist())
                if missing is None or not missing[row]
            },
        )


def _send(
    place: Path, again: Mapping[str, Mapping[int, _Point]], params: dict[str, Any], originals: Originals
) -> None:
    """Write points into a new event file, and take those of them that stand in the old ones out of there."""
    for path in place.glob(f"{layout.TEMPORARY_PREFIX}*"):
        fs.unlink(path)  # of one that was killed: no writer looks for it here
    old = event_files(place)
    made = [summaries.beginning(time.time())]
    if params:
        made.append(summaries.of_values(summaries.hparams(params), 0, time.time()))
    by_time: dict[tuple[int, float], dict[str, float]] = defaultdict(dict)
    for tag, points in again.items():
        for step, (value, when) in points.items():
            by_time[step, when][tag] = value
    made += [summaries.of_scalars(values, step, when) for (step, when), values in sorted(by_time.items())]
    whole = b"".join(tfrecords.record(event.SerializeToString()) for event in made)
    fs.make_directories(place)
    fs.replace_bytes(place / _name_after(old), whole, durable=True)
    first = {tag: min(points) for tag, points in again.items()}
    for path in old:
        kept, changed = bytearray(), False
        for event in tfrecords.contents(fs.read_bytes(path)):
            left = summaries.without(event, lambda tag, step: tag in first and step >= first[tag])
            changed |= left != event
            kept += b"" if left is None else tfrecords.record(left)
        if changed:
            originals.keep(path)
            fs.replace_bytes(path, bytes(kept), durable=True)


def _name_after(old: list[Path]) -> str:
    """The name of an event file that TensorBoard reads after the others, whatever the clocks said."""
    name = f"{new_name()}.redrawn"
    last = max((path.name for path in old), default="")
    return name if name > last else f"{last}.redrawn"
