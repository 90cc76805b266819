"""What a run sends to TensorBoard: rows of its tables as points, and its parameters once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from cox import events, schema
from cox.errors import CoxWarning, RowError, StorageError, StorageWarning, warn
from cox.storage import fs, layout

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

_log = logging.getLogger("cox")


class Curves:
    """The event files of one writer of a run. The first is made when something is sent.

    Args:
        run: The run.
        rank: The writer's number, where several write it.
        parameters: Gives the run's parameters, as far as there are any yet.
        lock: Gives the lock of who writes the run, or raises if nobody may.
        warns: Whether what the file system refuses is warned about, and not raised.
    """

    def __init__(
        self,
        run: layout.RunLayout,
        rank: int | None,
        *,
        parameters: Callable[[], Mapping[str, Any]],
        lock: Callable[[], AbstractContextManager[Any]],
        warns: bool,
    ) -> None:
        self._place = run.events_dir(rank)
        self._run_name = run.root.name
        self._is_first = not rank
        self._parameters, self._lock, self._warns = parameters, lock, warns
        self._writer: SummaryWriter | None = None
        self._told: dict[str, bool | float | str] | None = None  # the parameters, once they were sent

    @property
    def writer(self) -> SummaryWriter:
        """The SummaryWriter of tensorboardX, made on first use."""
        if self._writer is None:
            with self._lock():  # of two threads that come here first, one makes it
                if self._writer is None:
                    self._writer = self._made()
        return self._writer

    def add_row(
        self, table: str, step: int, values: Mapping[str, Any], cells: Mapping[str, Any], summary_type: str
    ) -> None:
        """Send values of a row, all of them or none.

        Args:
            table: The table.
            step: The row's number.
            values: Column names to values, as they were given.
            cells: The same as the table takes them; None is missing, and not shown.
            summary_type: One of `events.SUMMARY_TYPES`.

        Raises:
            RowError: A value cannot be shown so.
        """
        if summary_type == "scalar":
            points = {f"{table}/{name}": _scalar(table, name, values[name], cells[name]) for name in values}
            events.add_scalars(self.writer, points, step)
        else:
            made = [
                summary
                for name in values
                if cells[name] is not None
                for summary in _summaries(table, name, values[name], summary_type)
            ]
            events.add(self.writer, made, step)

    def add_hparams(self, params: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Send parameters, and last words as points at step 0.

        Raises:
            RowError: A metric is no number.
        """
        values = {tag: _metric(tag, value) for tag, value in metrics.items()}
        asked = events.plain_hparams(params)
        told, self._told = self._told, asked  # by now: making the writer sends those of the metadata
        try:
            events.add(self.writer, events.hparams(asked), 0)
        except BaseException:
            self._told = told
            raise
        events.add_scalars(self.writer, values, 0)
        if told and told != asked:
            self._told = told
            warn(
                f"run {self._run_name}: TensorBoard has been told other parameters, and keeps to those; call "
                "log_hparams before anything is logged to it",
                CoxWarning,
            )

    def last_steps(self) -> dict[str, int]:
        """The last step of each tag that was sent, by earlier processes too.

        Raises:
            StorageError: The event files cannot be read.
        """
        from cox.eventfile import last_steps

        try:
            return last_steps(self._place)
        except OSError as error:
            path = error.filename or self._place
            raise fs.refused(error, "cannot read the events for TensorBoard", path) from error

    def purge(self, step: int) -> None:
        """Have TensorBoard forget what was sent from a step on."""
        with self._lock():
            self.close()
            self._writer = self._made(purge_step=step)

    def close(self) -> None:
        """Let go of the event file. Sends the parameters before, if nobody has."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            self._send_parameters(writer)
            writer.close()
        except StorageError as error:
            if not self._warns:
                raise
            _warn_of(error)

    def _made(self, *, purge_step: int | None = None) -> SummaryWriter:
        from cox.eventfile import RunSummaryWriter

        on_refusal = _warn_of if self._warns else None
        made = RunSummaryWriter(os.fspath(self._place), purge_step=purge_step, on_refusal=on_refusal)
        self._send_parameters(made)
        return made

    def _send_parameters(self, to: SummaryWriter) -> None:
        """Send the parameters, once there are any. Nothing about them stops a program."""
        if self._told is not None or not self._is_first:
            return
        try:
            params = self._parameters()
            made = events.hparams(params) if params else ()
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 - nobody asked for it
            _log.warning("run %s: TensorBoard gets no parameters: %r", self._run_name, error)
            self._told = {}
            return
        if made:
            events.add(to, made, 0)
            self._told = events.plain_hparams(params)


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


def _summaries(table: str, name: str, value: Any, summary_type: str) -> events.Values:
    """What TensorBoard gets of a value that is to be shown as anything but a scalar."""
    try:
        return events.record(summary_type, f"{table}/{name}", value)
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
