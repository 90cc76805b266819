"""Sending the points of a run that are gone to TensorBoard again: its tables have them.

TensorBoard's fast loader takes a step that is not beyond the one before for a restart, and forgets what
came from it on. So a gap in a curve is not filled from behind: all points from the gap on are sent again,
in a new file, and then leave the old ones, of which the originals are kept.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cox import events, metadata, tfrecords
from cox.collection.scan import is_run
from cox.errors import RunNotFoundError
from cox.eventfile import EventFile
from cox.objects import Trust
from cox.repair import Originals, held
from cox.storage import fs, layout, snapshot
from cox.storage.columns import Array, TableData

#: Value and time of a point, in seconds since 1970.
_Point = tuple[float, float]


def redraw(
    path: str | os.PathLike[str], *, from_nothing: bool = True, dry_run: bool = False
) -> dict[str, int]:
    """Send the rows of a run to TensorBoard again, as far as their points are not there any more.

    Columns that `log_table_and_tb` has sent are known by the points that are left. A point's step is its
    row's number: a curve that has a point elsewhere is somebody else's, and is left alone.

    Args:
        path: The run's directory.
        from_nothing: Whether to send the numbers of all tables but the metadata, if the run has no point of
            any kind.
        dry_run: Whether only to tell what would be sent. Nothing is written then.

    Returns:
        How many points were missing of each tag; tags that lacked none are left out.

    Raises:
        RunNotFoundError: It is no run.
        RunInUseError: A process is writing it.
        DamagedError: Its rows cannot be read.
        StorageError: The file system refused something.
    """
    run = layout.RunLayout(Path(os.path.abspath(path)))  # noqa: PTH100 - keep links as they are
    if not is_run(run.root):
        raise RunNotFoundError(f"{run.root} is no run: it has no {layout.STORE_FILE}")
    lacking: Counter[str] = Counter()
    with contextlib.nullcontext() if dry_run else held(run):
        there = {place: _Drawn(place) for place in _places(run)}
        is_new = not any(drawn.points for drawn in there.values())
        if is_new and not from_nothing:
            return {}
        now = snapshot.read(run)
        originals = Originals(run)
        for rank, rows in _rows_of(now).items():
            place = run.events_dir(rank)
            drawn = there.get(place) or _Drawn(place)
            again = _again(now, rows, drawn, lacking, is_new=is_new)
            if again and not dry_run:
                params = {} if rank or drawn.has_hparams else _parameters(run, now)
                _send(drawn, again, params, originals)
    return dict(lacking)


@dataclass(slots=True)
class _Drawn:
    """The scalars in the event files of one directory that count.

    Attributes:
        place: The directory.
        points: By tag and step.
        has_hparams: Whether the HParams tab knows the run.
    """

    place: Path
    points: dict[str, dict[int, _Point]] = field(default_factory=lambda: defaultdict(dict))
    has_hparams: bool = False

    def __post_init__(self) -> None:
        for path in self.files():
            data = path.read_bytes()
            for start, stop in tfrecords.scan(data).good:
                found = events.read(tfrecords.content(data, start, stop))
                self.has_hparams |= found.has_hparams
                if found.purged_from is not None:
                    for points in self.points.values():
                        for step in [step for step in points if step >= found.purged_from]:
                            del points[step]
                for tag, value in found.scalars:
                    self.points[tag][found.step] = value, found.wall_time

    def files(self) -> list[Path]:
        """The event files, in the order in which TensorBoard reads them."""
        return sorted(path for path in self.place.glob("*tfevents*") if path.is_file())


def _places(run: layout.RunLayout) -> Iterator[Path]:
    """The directories of a run that have event files."""
    for path in [run.tensorboard_dir, *sorted(run.tensorboard_dir.glob("**/"))]:
        if any(path.glob("*tfevents*")):
            yield path


def _rows_of(now: snapshot.Snapshot) -> dict[int | None, list[tuple[TableData, Array]]]:
    """The rows of each rank, table by table; None is no rank."""
    found: dict[int | None, list[tuple[TableData, Array]]] = {}
    for name, table in now.tables.items():
        for rank, rows in now.by_rank(name):
            found.setdefault(rank, []).append((table, rows))
    return found


def _again(
    now: snapshot.Snapshot,
    rows: list[tuple[TableData, Array]],
    drawn: _Drawn,
    lacking: Counter[str],
    *,
    is_new: bool,
) -> dict[str, dict[int, _Point]]:
    """The points to send of each tag: all from the first one on that is missing. Counts those that are."""
    again: dict[str, dict[int, _Point]] = {}
    for table, own in rows:
        for tag, wanted in _points_of(now, table, own):
            there = drawn.points.get(tag, {})
            # one more than there are rows: sent by a process that was killed before it flushed the row
            is_ours = bool(there) and min(there) >= 0 and max(there) <= len(own)
            if not (table.name != metadata.METADATA if is_new else is_ours):
                continue
            missing = wanted.keys() - there.keys()
            if missing:
                lacking[tag] += len(missing)
                first, when = min(missing), time.time()
                made = {step: (value, when) for step, value in wanted.items()} | there
                again[tag] = {step: made[step] for step in sorted(made) if step >= first}
    return again


def _points_of(
    now: snapshot.Snapshot, table: TableData, rows: Array
) -> Iterator[tuple[str, dict[int, float]]]:
    """The tag of each column of numbers, and its values by the number of the row among these."""
    for column in table.schema:
        if column.kind not in ("int", "float", "bool") or (
            now.is_ranked and column.name == layout.RANK_COLUMN
        ):
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


def _parameters(run: layout.RunLayout, now: snapshot.Snapshot) -> dict[str, Any]:
    table = now.tables.get(metadata.METADATA)
    return {} if table is None else metadata.parameters(table, run, Trust(run), is_ranked=now.is_ranked)


def _send(
    drawn: _Drawn, again: dict[str, dict[int, _Point]], params: dict[str, Any], originals: Originals
) -> None:
    """Write points into a new event file, and take those of them that stand in the old ones out of there."""
    old = drawn.files()
    by_step: dict[int, dict[str, _Point]] = defaultdict(dict)
    for tag, points in again.items():
        for step, point in points.items():
            by_step[step][tag] = point
    file = EventFile(os.fspath(drawn.place))
    if params:
        file.add_event(events.of_values(events.hparams(params), 0, time.time()))
    for step in sorted(by_step):
        values = {tag: value for tag, (value, _) in by_step[step].items()}
        when = max(wall_time for _, wall_time in by_step[step].values())
        file.add_event(events.of_scalars(values, step, when))
    file.close()
    first = {tag: min(points) for tag, points in again.items()}
    for path in old:
        data = path.read_bytes()
        whole, changed = bytearray(), False
        for start, stop in tfrecords.scan(data).good:
            event = tfrecords.content(data, start, stop)
            left = events.without(event, lambda tag, step: tag in first and step >= first[tag])
            changed |= left != event
            whole += b"" if left is None else tfrecords.record(left)
        if changed:
            originals.keep(path)
            fs.replace_bytes(path, bytes(whole), durable=True)
