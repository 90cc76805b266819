"""Times, durations and sizes as people say them."""

from __future__ import annotations

import datetime
import time

_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "min"))


def ago(moment: datetime.datetime) -> str:
    """How long ago a moment was; its date, where that is more than a month."""
    seconds = time.time() - moment.timestamp()
    if seconds > 30 * 86400:
        return moment.astimezone().strftime("%Y-%m-%d")
    for size, unit in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 and unit != 'min' else ''} ago"
    return f"{int(seconds)} s ago" if seconds >= 1 else "now"


def lasting(seconds: float) -> str:
    """A duration in at most two units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def moment(seconds: float | None) -> datetime.datetime | None:
    """Seconds since 1970 as a moment, in UTC; None for none, and for one beyond the calendar."""
    if seconds is None:
        return None
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None


def as_bytes(size: float) -> str:
    """A size, as in 12.3 MB."""
    if size < 1000:
        return f"{int(size)} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.3g} TB"
