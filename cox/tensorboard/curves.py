"""What a run sends to TensorBoard: rows of its tables as points, and its parameters once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cox import schema
from cox.errors import CoxWarning, RowError, StorageError, StorageWarning, warn
from cox.storage import curvefiles, fs, layout
from cox.tensorboard import summaries

if TYPE_CHECKING:
    from cox.tensorboard.eventfile import Drawn, RunSummaryWriter

_log = logging.getLogger("cox")


class Curves:
    """The event files of one writer of a run. The first is made when something is sent.

    Args:
        run: Gives the run, which may be moved.
        rank: The writer's number, where several write it.
        parameters: Gives the run's parameters, as far as there are any yet.
        lock: Gives the lock of who writes the run, or raises if nobody may.
        warns: Whether what the file system refuses is warned about, and not raised.
    """

    def __init__(
        self,
        run: Callable[[], layout.RunLayout],
        rank: int | None,
        *,
        parameters: Callable[[], Mapping[str, Any]],
        lock: Callable[[], AbstractContextManager[Any]],
        warns: bool,
    ) -> None:
        self._layout, self._rank = run, rank
        self._is_first = not rank
        self._parameters, self._lock, self._warns = parameters, lock, warns
        self._writer: RunSummaryWriter | None = None
        self._told: dict[str, bool | float | str] | None = None  # the parameters, once they were sent

    @property
    def _run(self) -> Path:
        """Where the run is by now."""
        return self._layout().root

    @property
    def _place(self) -> Path:
        return self._layout().events_dir(self._rank)

    @property
    def writer(self) -> RunSummaryWriter:
        """The SummaryWriter of tensorboardX, made on first use."""
        if self._writer is None:
            with self._lock():  # of two threads that come here first, one makes it
                if self._writer is None:
                    self._writer = self._make_writer()
        return self._writer

    def add_row(
        self,
        table: str,
        row: int,
        values: Mapping[str, Any],
        cells: Mapping[str, Any],
        summary_type: str,
        step: int | None = None,
    ) -> None:
        """Send values of a row, all of them or none.

        Args:
            table: The table.
            row: The row's number.
            values: Column names to values, as they were given.
            cells: The same as the table takes them; None is missing, and not shown.
            summary_type: One of `summaries.SUMMARY_TYPES`.
            step: The step of the points, if it is not the row's number.

        Raises:
            RowError: A value cannot be shown so.
        """
        if summary_type == "scalar":
            points = {f"{table}/{name}": _scalar(table, name, values[name], cells[name]) for name in values}
            entries = summaries.scalars(points)
        else:
            entries = [
                summary
                for name in values
                if cells[name] is not None
                for summary in _summaries(table, name, values[name], summary_type)
            ]
        if step is None:
            summaries.add(self.writer, entries, row)
        elif entries:  # a rewind by rows has to know where TensorBoard shows them
            summaries.add(self.writer, [*entries, *summaries.row_mark(table, row)], step)

    def add_hparams(
        self, params: Mapping[str, Any], metrics: Mapping[str, Any], step: int | None = None
    ) -> None:
        """Send parameters, if there are any, and metrics as points of one step, 0 if it is not given.

        Of several ranks the first one sends the parameters: those of another would be another run's.

        Raises:
            RowError: A metric, or the step, is not a number.
        """
        values = {tag: _metric(tag, value) for tag, value in metrics.items()}
        step = 0 if step is None else whole_step(step)
        if params and self._is_first:
            self._tell(params)
        summaries.add(self.writer, summaries.scalars(values), step)

    def _tell(self, params: Mapping[str, Any]) -> None:
        """Send parameters, unless TensorBoard has been told others."""
        asked = summaries.plain_hparams(params)
        told, self._told = self._told, asked  # by now: making the writer sends those of the metadata
        try:
            summaries.add(self.writer, summaries.hparams(asked), 0)
        except BaseException:
            self._told = told
            raise
        if told and told != asked:
            self._told = told
            warn(
                f"run {self._run.name}: TensorBoard has been told other parameters, and keeps to those; call "
                "log_hparams before anything is logged to it",
                CoxWarning,
            )

    def drawn(self) -> dict[Path, Drawn]:
        """What was sent, by earlier processes too, by directories of event files.

        Raises:
            StorageError: The event files cannot be read.
        """
        try:
            places = [self._place, *curvefiles.subdirectories(self._place)]
            if not any(any(place.glob(layout.EVENT_FILES)) for place in places):
                return {}  # nothing, and no reason to import what reads it
            from cox.tensorboard.eventfile import drawn

            seen = {place: drawn(place) for place in places}
        except OSError as error:
            path = error.filename or self._place
            doing = "cannot read the events for TensorBoard"
            raise fs.refused(error, doing, path, reading=True) from error
        return {place: sent for place, sent in seen.items() if sent.last}

    def rewind(
        self,
        sent: Mapping[Path, Drawn],
        table: str,
        nrows: int,
        step: int | None,
        tags: Mapping[str, tuple[str, int]],
    ) -> None:
        """Have TensorBoard forget what was sent of a table's later rows, and from their step on.

        Args:
            sent: What was sent before.
            table: The table.
            nrows: How many rows are left of it.
            step: The step that the rewind went by, if it did.
            tags: The table of each tag that `add_row` may have sent, and how many rows that had.
        """
        steps = {place: _first_to_forget(drawn, table, nrows, step, tags) for place, drawn in sent.items()}
        purges = {place: first for place, first in steps.items() if first is not None}
        with self._lock():
            if purges and self._writer is not None:
                self._writer.purge(purges)
            elif purges:
                self._writer = self._make_writer(purges)
            try:
                curvefiles.drop_embeddings(self._place, nrows if step is None else step)
            except OSError as error:
                doing = "cannot remove embeddings for TensorBoard"
                raise fs.refused(error, doing, error.filename or self._place) from error

    def close(self) -> None:
        """Let go of the event file. Sends the parameters before, if nobody has."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            self._send_parameters(writer)
        except StorageError as error:
            if not self._warns:
                raise
            _warn_of(error)
        finally:
            self._end(writer)

    def pause(self) -> None:
        """Send the parameters, if nobody has: the program is ending. More may be sent later all the same."""
        if self._writer is not None:
            try:
                self._send_parameters(self._writer)
            except StorageError as error:
                if not self._warns:
                    raise
                _warn_of(error)

    def _end(self, writer: RunSummaryWriter) -> None:
        try:
            writer.end(f"the store of run {self._run} is closed: open it again to go on")
        except StorageError as error:
            if not self._warns:
                raise
            _warn_of(error)

    def _make_writer(self, purges: Mapping[Path, int] | None = None) -> RunSummaryWriter:
        from cox.tensorboard.eventfile import RunSummaryWriter

        writer = RunSummaryWriter(
            os.fspath(self._place),
            inside=self._run,
            purges=purges,
            on_refusal=_warn_of if self._warns else None,
            send_hparams=self.add_hparams,
        )
        self._send_parameters(writer)
        return writer

    def _send_parameters(self, to: RunSummaryWriter) -> None:
        """Send the parameters, once there are any. Nothing about them stops a program."""
        if self._told is not None or not self._is_first:
            return
        try:
            params = self._parameters()
            made = summaries.hparams(params) if params else ()
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - nobody asked for it
            _log.warning("run %s: TensorBoard gets no parameters: %r", self._run.name, error)
            self._told = {}
            return
        if made:
            summaries.add(to, made, 0)
            self._told = summaries.plain_hparams(params)


def whole_step(step: Any) -> int:
    """A step of TensorBoard's, which numpy and torch may have.

    Raises:
        RowError: It is not a whole number of 64 bits.
    """
    number = schema.as_number(step)
    if isinstance(number, int) and schema.INT_MIN <= number <= schema.INT_MAX:
        return number
    raise RowError(f"step={schema.shown(step)} is not a whole number of 64 bits: give one, or leave it out")


def _first_to_forget(
    drawn: Drawn, table: str, nrows: int, step: int | None, tags: Mapping[str, tuple[str, int]]
) -> int | None:
    """The step from which on TensorBoard is to forget what stands in a directory; None for nothing.

    A curve counts the rows of its table, or these were sent with steps, or it is the program's own and counts
    as that does: by the step that a rewind goes by.
    """

    def is_known(tag: str) -> bool:
        of, rows = tags.get(tag, ("", -1))
        return of == table if of in drawn.rows else drawn.last[tag] <= rows

    if step is not None and not all(map(is_known, drawn.last)):
        return step
    if table in drawn.rows:
        return min((at for row, at in drawn.rows[table] if row >= nrows), default=None)
    return nrows


def _warn_of(error: StorageError) -> None:
    warn(f"not stored: {error}", StorageWarning)


def _scalar(table: str, name: str, value: Any, cell: Any) -> float | None:
    """What TensorBoard gets of a value: None for a missing one."""
    if isinstance(cell, (float, int)) or cell is None:
        return cell
    number = schema.infer({name: value})[name]
    try:
        return float(value) if number in (float, int, bool, str) else float(value.item())
    except (AttributeError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise RowError(
            f"table {table!r}, column {name!r}: {schema.shown(value)} is no scalar for TensorBoard; use "
            "update_row for it, or another summary_type"
        ) from error


def _summaries(table: str, name: str, value: Any, summary_type: str) -> summaries.Values:
    """What TensorBoard gets of a value that is to be shown as anything but a scalar."""
    try:
        return summaries.record(summary_type, f"{table}/{name}", value)
    except Exception as error:
        raise RowError(
            f"table {table!r}, column {name!r}: TensorBoard cannot show a value of type "
            f"{type(value).__qualname__} as {summary_type!r} ({type(error).__name__}: {error}); use "
            "update_row for it, or another summary_type"
        ) from error


def _metric(tag: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise RowError(f"metric {tag!r}: {schema.shown(value)} is no number") from error
