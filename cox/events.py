"""Scalars for TensorBoard under exactly the tags they were given.

`SummaryWriter.add_scalar` replaces characters: `results/f(x)` would be shown as `results/f_x_`, and two
columns could become one curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


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
    if values:
        writer._get_file_writer().add_summary(Summary(value=values), step)
