"""Converts what users give into the form that the API takes."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from moodline.errors import ClientError
from moodline.shared.streams import check_stream_id

When = datetime | str
"""A moment: a datetime with a time zone, or text as the API takes it: ISO 8601, `now`, or relative such as `-1h`."""

Names = str | Iterable[str]
"""One text, or some."""


def when(moment: When | None) -> str | None:
    """Return a moment as text. Raises `ClientError` for a datetime without a time zone."""
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise ClientError("this datetime has no time zone; write e.g. datetime(2026, 5, 1, 12, tzinfo=UTC)")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def names(given: Names) -> list[str]:
    """Return some texts as a list; a single one is not taken apart."""
    return [given] if isinstance(given, str) else list(given)


def query(**given: Any) -> dict[str, Any]:
    """Return those parameters that are given; the `_` at the end of `from_` is left out. Empty lists count as not given."""
    return {name.rstrip("_"): value for name, value in given.items() if value is not None and value != []}


def body(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a body, moments as text."""
    return {name: when(value) if isinstance(value, datetime) else value for name, value in given.items()}


def stream_path(stream_id: str, *rest: str) -> str:
    """Return a path below a stream. Raises `InvalidStreamError` for an id that no stream can have."""
    return "/".join(("/streams", check_stream_id(stream_id), *rest))
