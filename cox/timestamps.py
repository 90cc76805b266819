"""Times as text: how a column holds them, and which texts are times."""

from __future__ import annotations

from datetime import datetime, timezone


def time_text(value: datetime) -> str:
    """A time as a column holds it: 26 characters, and a `Z` after them if it has a zone, then in UTC."""
    if value.utcoffset() is None:
        return value.replace(tzinfo=None).isoformat("T", "microseconds")
    return value.astimezone(timezone.utc).isoformat("T", "microseconds")[:26] + "Z"


def time_of(text: str) -> datetime:
    """The time that a text in ISO 8601 tells: without a zone if the text has none.

    Raises:
        ValueError: It is not such a text.
    """
    return datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)
