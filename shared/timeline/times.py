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
"""Limits of event time within which the edges of an answer, which lie on the grid, can be written as dates."""

_UNITS_US: Final = {
    "ms": 1_000,
    "s": SECOND_US,
    "m": 60 * SECOND_US,
    "min": 60 * SECOND_US,
    "h": 3600 * SECOND_US,
    "d": 86_400 * SECOND_US,
    "w": 7 * 86_400 * SECOND_US,
}
_LENGTH: Final = re.compile(r"(\d{1,15})(ms|s|min|m|h|d)", re.ASCII)
_STEP: Final = re.compile(r"([+-])(\d{1,15})(ms|s|min|m|h|d|w|M|y)", re.ASCII)
_BACK: Final = re.compile(r"-\d{1,15}(ms|s|min|m|h|d)", re.ASCII)
_FROM_NOW: Final = re.compile(r"now(?P<steps>([+-]\d{1,15}(ms|s|min|m|h|d|w|M|y))*)(/(?P<unit>[smhdwMy]))?", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,16}(\.\d{1,9})?", re.ASCII)
_MILLISECONDS_FROM: Final = 10**11
"""A number from here on is one of milliseconds: as seconds it would lie beyond the year 5138, as milliseconds in 1973."""


def parse_time(text: str, now_us: int, field: str = "from") -> int:
    """Return a point in time, microseconds since the Unix epoch.

    Args:
        text: ISO 8601 (`2026-05-01T12:00:00+02:00`; UTC where no zone is given); seconds or milliseconds since the Unix epoch
            (`1777636800`, `1777636800000`); `now`, or relative to it (`-90s`, `-1h`; units ms, s, m or min, h, d), also as
            Grafana writes it: `now-5m`, `now-1d/d`, with the further units w, M and y (months and years of the calendar, UTC);
            `/d` goes to the start of the day, in the field `to` to its end.
        now_us: What `now` means: for a live stream the wall clock, for a file the end of its timeline.
        field: Name of the parameter, for the error.

    Raises:
        QueryError: the text is none of these, or lies outside the years 1900 to 2299.
    """
    word = text.strip()
    try:
        if word.startswith(("now", "-")):
            time_us = _relative_us(word, now_us, field)
        elif _NUMBER.fullmatch(word) and not _is_date(word):
            time_us = _epoch_us(word)
        else:
            time_us = _iso_us(word)
    except (ValueError, OverflowError):
        raise QueryError(
            field,
            f"{field}: {text[:64]!r} is not a time; write ISO 8601 like 2026-05-01T12:00:00Z (a + of a zone is %2B in a URL), "
            "seconds or milliseconds since 1970, now, or relative like -1h or now-5m",
        ) from None
    if not _EARLIEST_US <= time_us < _LATEST_US:
        raise QueryError(field, f"{field}: {text[:64]!r} lies outside the years 1900 to 2299")
    return time_us


def is_absolute(text: str | None) -> bool:
    """Return whether a time that `parse_time` takes is the same whenever it is asked for."""
    return text is not None and not text.strip().startswith(("now", "-"))


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


def _relative_us(word: str, now_us: int, field: str) -> int:
    found = _FROM_NOW.fullmatch(f"now{word}" if _BACK.fullmatch(word) else word)
    if found is None:
        raise ValueError(word)
    time_us = now_us
    for sign, number, unit in _STEP.findall(found["steps"]):
        time_us = _moved(time_us, int(f"{sign}{number}"), unit)
    unit = found["unit"]
    if not unit:
        return time_us
    start_us = _start_of(time_us, unit)
    return _moved(start_us, 1, unit) if field == "to" else start_us


def _moved(time_us: int, count: int, unit: str) -> int:
    if unit in _UNITS_US:
        return time_us + count * _UNITS_US[unit]
    months = count * (12 if unit == "y" else 1)
    moment = _EPOCH + time_us * _MICROSECOND
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    first_of_next = datetime(year + (month == 11), (month + 1) % 12 + 1, 1, tzinfo=UTC)
    last_day = (first_of_next - timedelta(days=1)).day
    return (moment.replace(year=year, month=month + 1, day=min(moment.day, last_day)) - _EPOCH) // _MICROSECOND


def _start_of(time_us: int, unit: str) -> int:
    if unit in "smhd":
        return time_us // _UNITS_US[unit] * _UNITS_US[unit]
    day = (_EPOCH + time_us * _MICROSECOND).replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "w":
        day -= timedelta(days=day.weekday())
    else:
        day = day.replace(day=1) if unit == "M" else day.replace(month=1, day=1)
    return (day - _EPOCH) // _MICROSECOND


def _is_date(word: str) -> bool:
    """Return whether a number is meant as a date, or a year, of ISO 8601."""
    return len(word) in (4, 8) and "." not in word and "1900" <= word[:4] < "2300"


def _epoch_us(word: str) -> int:
    whole, _, rest = word.partition(".")
    thousandth = int(whole) >= _MILLISECONDS_FROM
    digits, unit_us = (3, 1_000) if thousandth else (6, SECOND_US)
    return int(whole) * unit_us + int(rest[:digits].ljust(digits, "0"))


def _iso_us(word: str) -> int:
    moment = datetime.fromisoformat(word.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND
