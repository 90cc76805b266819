"""Summaries for TensorBoard, under exactly the tags they were given.

`SummaryWriter.add_scalar` and its like replace characters: `results/f(x)` would be shown as
`results/f_x_`, and two columns could become one curve. They also write as they go, where a row is to
reach TensorBoard whole or not at all: so summaries are made first, by `record` or as scalars, and
written as one event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


def add_scalars(writer: SummaryWriter, points: Mapping[str, float | None], step: int) -> None:
    """Write one point for each tag; None is no point.

    Args:
        writer: Where to.
        points: Tags to values.
        step: The step of all of them.
    """
    from tensorboardX.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=tag, simple_value=float(value))
        for tag, value in points.items()
        if value is not None
    ]
    add(writer, values, step)


def add(writer: SummaryWriter, values: Values, step: int) -> None:
    """Write summaries, all of them in one event.

    Args:
        writer: Where to.
        values: What `record` returned.
        step: The step of all of them.
    """
    from tensorboardX.proto.summary_pb2 import Summary

    if values:
        writer._get_file_writer().add_summary(Summary(value=values), step)


def of_scalars(points: Mapping[str, float], step: int, wall_time: float) -> Any:
    """One point for each tag, as an event for an `EventFile`; `wall_time` in seconds since 1970."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
    return Event(wall_time=wall_time, step=step, summary=Summary(value=values))


def scalars_in(data: bytes) -> tuple[list[tuple[str, int]], int | None]:
    """The tags and steps of an event's scalars, and the step from which on earlier points do not count.

    Args:
        data: The event, as it stands in a record of an event file.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    event = Event.FromString(data)
    if event.HasField("session_log") and event.session_log.status == SessionLog.START:
        return [], int(event.step)
    scalars = [value.tag for value in event.summary.value if value.WhichOneof("value") == "simple_value"]
    return [(tag, int(event.step)) for tag in scalars], None


def hparams(params: Mapping[str, Any], metrics: Sequence[str] = ()) -> Values:
    """What TensorBoard's HParams tab wants to know of a run.

    Args:
        params: The parameters: numbers, truth values and text; anything else is shown as text, and so are
            numbers that are not finite or beyond a float.
        metrics: The tags of the scalars to compare runs by; by default the tab takes all there are.
    """
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2

    start = plugin_hparams_pb2.SessionStartInfo()
    infos = []
    for name, value in params.items():
        if value is None:
            continue
        key, plain = _encodable(name), _plain(value)
        if isinstance(plain, bool):
            start.hparams[key].bool_value = plain
            kind = api_pb2.DATA_TYPE_BOOL
        elif isinstance(plain, float):
            start.hparams[key].number_value = plain
            kind = api_pb2.DATA_TYPE_FLOAT64
        else:
            start.hparams[key].string_value = plain
            kind = api_pb2.DATA_TYPE_STRING
        infos.append(api_pb2.HParamInfo(name=key, type=kind))
    made = [_of_plugin("session_start_info", start)]
    if metrics:
        tags = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=_encodable(tag))) for tag in metrics]
        made.insert(0, _of_plugin("experiment", api_pb2.Experiment(hparam_infos=infos, metric_infos=tags)))
    return made


def _of_plugin(what: str, content: Any) -> Any:
    """A summary for the HParams tab."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
    from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

    data = HParamsPluginData(version=0, **{what: content}).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
    return Summary.Value(tag=f"_hparams_/{what}", metadata=SummaryMetadata(plugin_data=plugin))


def _plain(value: Any) -> bool | float | str:
    """A parameter as the HParams tab can show it. Never raises."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else _encodable(shown(value))
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
