"""Summaries for TensorBoard, under exactly the tags they were given.

`SummaryWriter.add_scalar` and its like replace characters: `results/f(x)` would be shown as
`results/f_x_`, and two columns could become one curve. They also write as they go, where a row is to
reach TensorBoard whole or not at all: so summaries are made first, by `record` or as scalars, and
written as one event.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cox.schema import shown

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

#: Of Summary.Value, for which tensorboardX has no types.
Values = Sequence[Any]

#: The `add_…` of a SummaryWriter that take a tag, a value and a step, and write nothing but a summary.
#: Others want more (`add_pr_curve`), or make files of their own (`add_scalars`, `add_embedding`).
SUMMARY_TYPES = ("audio", "figure", "histogram", "image", "images", "scalar", "text", "video")

# no character in it is one that tensorboardX replaces
_TAG = "tag"
#: The tag under which the HParams plugin looks for a run's parameters.
_SESSION_START = "_hparams_/session_start_info"
#: The tag of a summary for cox alone, which says of which row the others of its event are.
_ROW = "_cox_/row"
_PLUGIN = "cox"
#: What TensorBoard shows to nobody.
_UNSEEN = (_SESSION_START, _ROW)


def scalars(points: Mapping[str, float | None]) -> Values:
    """Make one point for each tag; None is not a point."""
    from tensorboardX.proto.summary_pb2 import Summary

    return [
        Summary.Value(tag=tag, simple_value=float(value))
        for tag, value in points.items()
        if value is not None
    ]


def row_mark(table: str, row: int) -> Values:
    """Make what says of which row the other summaries of an event are, where the step does not.

    TensorBoard has no plugin of this name, and shows nothing of it.
    """
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    plugin = SummaryMetadata.PluginData(plugin_name=_PLUGIN, content=f"{row} {table}".encode())
    return [Summary.Value(tag=_ROW, metadata=SummaryMetadata(plugin_data=plugin))]


def add(writer: SummaryWriter, values: Values, step: int) -> None:
    """Write summaries, all of them in one event.

    Args:
        writer: Where to.
        values: What `scalars`, `record` or `hparams` returned.
        step: The step of all of them.
    """
    from tensorboardX.proto.summary_pb2 import Summary

    if values:
        writer._get_file_writer().add_summary(Summary(value=values), step)


def of_scalars(points: Mapping[str, float], step: int, wall_time: float) -> Any:
    """One point for each tag, as an event for an `EventFile`; `wall_time` in seconds since 1970."""
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
    return of_values(values, step, wall_time)


def beginning(wall_time: float) -> Any:
    """The event that an event file begins with; `wall_time` in seconds since 1970."""
    from tensorboardX.proto.event_pb2 import Event

    return Event(wall_time=wall_time, file_version="brain.Event:2")


def of_values(values: Values, step: int, wall_time: float) -> Any:
    """Summaries, as an event for an `EventFile`; `wall_time` in seconds since 1970."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    return Event(wall_time=wall_time, step=step, summary=Summary(value=values))


@dataclass(frozen=True, slots=True)
class Found:
    """What an event says.

    Attributes:
        step: Its step.
        wall_time: When it was written, in seconds since 1970.
        tags: Of all that it shows.
        scalars: Tags and values of those that are scalars.
        purged_from: The step from which on earlier points do not count; None if they do.
        has_hparams: Whether it has the parameters for the HParams tab.
        row: The table and the number of the row that it shows, if it says so; see `row_mark`.
    """

    step: int
    wall_time: float
    tags: list[str]
    scalars: list[tuple[str, float]]
    purged_from: int | None
    has_hparams: bool
    row: tuple[str, int] | None


def read(data: bytes) -> Found:
    """What an event says, as it stands in a record of an event file: nothing, if it is none."""
    from tensorboardX.proto.event_pb2 import SessionLog

    event = _decoded(data)
    purges = event.HasField("session_log") and event.session_log.status == SessionLog.START
    return Found(
        int(event.step),
        float(event.wall_time),
        [value.tag for value in event.summary.value if value.tag not in _UNSEEN],
        [(value.tag, float(value.simple_value)) for value in event.summary.value if _is_scalar(value)],
        int(event.step) if purges else None,
        any(value.tag == _SESSION_START for value in event.summary.value),
        next(filter(None, map(_marked_row, event.summary.value)), None),
    )


def _marked_row(value: Any) -> tuple[str, int] | None:
    plugin = value.metadata.plugin_data
    if value.tag != _ROW or plugin.plugin_name != _PLUGIN:
        return None
    row, _, table = plugin.content.partition(b" ")
    return (table.decode(errors="replace"), int(row)) if row.isdigit() and len(row) < 20 else None


def without(data: bytes, drop: Callable[[str, int], bool]) -> bytes | None:
    """An event without some of its scalars, as bytes; None if there is nothing left.

    Args:
        data: The event.
        drop: Whether to drop the scalar of a tag and a step.
    """
    event = _decoded(data)
    values = list(event.summary.value)
    left = [value for value in values if not (_is_scalar(value) and drop(value.tag, int(event.step)))]
    if len(left) == len(values):
        return data
    del event.summary.value[:]
    event.summary.value.extend(left)
    return bytes(event.SerializeToString()) if left else None


def _decoded(data: bytes) -> Any:
    """An event; an empty one for bytes that are none, which TensorBoard does not show either."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboardX.proto.event_pb2 import Event

    try:
        return Event.FromString(data)
    except DecodeError:
        return Event()


def _is_scalar(value: Any) -> bool:
    return bool(value.WhichOneof("value") == "simple_value")


def plain_hparams(params: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Parameters as the HParams tab can show them. Never raises.

    A number that is not finite, or beyond a float, is left out, as a missing value is: as text it would make
    text of the whole column, and filters by numbers would find nothing in it.

    Args:
        params: Numbers, truth values and text; anything else is shown as text.
    """
    plain = {_encodable(name): _plain(value) for name, value in params.items()}
    return {name: value for name, value in plain.items() if value is not None}


def hparams(params: Mapping[str, Any]) -> Values:
    """What TensorBoard's HParams tab wants to know of a run.

    It compares by all scalars there are. An event of the plugin's could choose some; but TensorBoard goes by
    the first of those that it finds, and hides what the other runs have.

    Args:
        params: As for `plain_hparams`.
    """
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionStartInfo
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    start = SessionStartInfo()
    for name, value in plain_hparams(params).items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, float):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = value
    data = HParamsPluginData(version=0, session_start_info=start).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    return [Summary.Value(tag=_SESSION_START, metadata=SummaryMetadata(plugin_data=plugin))]


def _plain(value: Any) -> bool | float | str | None:
    """A parameter as the HParams tab can show it, None if it cannot. Never raises."""
    if callable(item := getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        with contextlib.suppress(Exception):  # of numpy, torch and their like
            value = item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else None
    return _encodable(value if isinstance(value, str) else shown(value, str))


def _encodable(text: Any) -> str:
    """A text without halves of surrogate pairs, which protobuf refuses."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def record(summary_type: str, tag: str, value: Any) -> Values:
    """Make what the SummaryWriter's `add_<summary_type>(tag, value)` writes, and write nothing.

    Args:
        summary_type: One of `SUMMARY_TYPES`.
        tag: The tag.
        value: The value.

    Raises:
        Exception: Whatever tensorboardX raises for a value that does not suit it; a ValueError if it raises
            nothing, and makes nothing either.
    """
    from tensorboardX import SummaryWriter

    recorder = _Recorder()
    writer = SummaryWriter(logdir="nowhere", write_to_disk=False)
    writer._get_file_writer = lambda: recorder
    getattr(writer, f"add_{summary_type}")(_TAG, value)
    # add_images of a list makes nothing, add_video without moviepy an empty summary
    if not recorder.values or any(made.WhichOneof("value") is None for made in recorder.values):
        raise ValueError("tensorboardX made nothing of it, and said why on its own")
    for made in recorder.values:
        made.tag = tag + made.tag.removeprefix(_TAG)  # that of a text ends in /text_summary
    return recorder.values


class _Recorder:
    """In place of the FileWriter of a SummaryWriter: keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add_summary(
        self, summary: Any, global_step: int | None = None, walltime: float | None = None
    ) -> None:
        self.values.extend(summary.value)
