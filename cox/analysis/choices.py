"""What `compare`, `wide` and `plot` let one choose from: names alone, so that a command loads no numpy."""

from __future__ import annotations

#: What makes one number of a run's rows.
REDUCTIONS = ("last", "first", "max", "min", "mean", "median", "sum")
#: Those that `wide` shows of each metric, unless told otherwise.
WIDE_REDUCTIONS = ("last", "min", "max")
INTERVALS = ("t", "bootstrap")
#: What is shown around a mean.
BANDS = ("ci", "sd", "minmax", None)
#: Which axes are logarithmic.
LOGARITHMIC = ("", "x", "y", "xy")
