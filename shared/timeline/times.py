"""Times and lengths as people write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from moodline.shared.errors import QueryError
from moodline.shared.timeline.bucket import SECOND_US

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EARLIEST_US: Final = (datetime(1900, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST_US: Final = (datetime(2300, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LONGEST_S: Final = 366 * 86_400
"""With these limits the edges of an answer, which lie on the grid, can be written as dates too."""

_UNITS_US: Final = {
    "ms": 1_000,
    "s": SECOND_US,
    "m": 60 * SECOND_US,
    "min": 60 * SECOND_US,
    "h": 3600 * SECOND_US,
    "d": 86_400 * SECOND_US,
}
_LENGTH: Final = re.compile(r"(\d{1,15})(ms|s|min|m|h|d)", re.ASCII)


def parse_time(text: str, now_us: int, field: str = "from") -> int:
    """Return a point in time, microseconds since the Unix epoch.

    Args:
        text: ISO 8601 (`2026-05-01T12:00:00+02:00`; UTC where no zone is given), `now`, or relative to it (`-90s`, `-1h`;
            units ms, s, m or min, h, d).
        now_us: What `now` means: for a live stream the wall clock, for a file the end of its timeline.
        field: Name of the parameter, for the error.

    Raises:
        QueryError: the text is none of these, or lies outside the years 1900 to 2299.
    """
    word = text.strip()
    if word == "now":
        return now_us
    time_us = now_us - _length_us(word[1:], text, field) if word.startswith("-") else _iso_us(word, text, field)
    if not _EARLIEST_US <= time_us < _LATEST_US:
        raise QueryError(field, f"{field}: {text[:64]!r} lies outside the years 1900 to 2299")
    return time_us


def parse_resolution(text: str, field: str = "resolution") -> int:
    """Return the length of a point in whole seconds, 1 s to 366 d: `10s`, `1min` or `1m`, `1h`, `1d`.

    Raises:
        QueryError: the text is not a length, not one of whole seconds, or too long.
    """
    found = _LENGTH.fullmatch(text.strip())
    length_us = int(found[1]) * _UNITS_US[found[2]] if found else 0
    if not SECOND_US <= length_us <= _LONGEST_S * SECOND_US or length_us % SECOND_US:
        raise QueryError(
            field, f"{field}: {text[:64]!r} is not a length in whole seconds up to 366d; write 10s, 1min, 10min or 1h"
        )
    return length_us // SECOND_US


def _length_us(word: str, text: str, field: str) -> int:
    found = _LENGTH.fullmatch(word)
    if not found:
        raise QueryError(field, f"{field}: {text[:64]!r} is not a time; write -90s, -15min, -1h, -2d, now, or ISO 8601")
    return int(found[1]) * _UNITS_US[found[2]]


def _iso_us(word: str, text: str, field: str) -> int:
    try:
        moment = datetime.fromisoformat(word)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise QueryError(
            field,
            f"{field}: {text[:64]!r} is not a time; write ISO 8601 like 2026-05-01T12:00:00Z (a + of a zone is %2B in a URL), "
            "now, or relative like -1h",
        ) from None
