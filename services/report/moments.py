"""Points in time: microseconds inside Moodline, ISO 8601 for everybody else."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from pydantic import PlainSerializer

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_datetime(us: int) -> datetime:
    """Return the moment, UTC, of microseconds since the Unix epoch, exactly."""
    return EPOCH + timedelta(microseconds=us)


def to_us(moment: datetime) -> int:
    """Return microseconds since the Unix epoch, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def iso(moment: datetime) -> str:
    """Return e.g. `2026-05-01T12:00:00Z`; fractions of a second only where there are some."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(iso, return_type=str, when_used="json")]
"""A moment in an answer; ISO 8601 in JSON."""


def clock_text(seconds: float) -> str:
    """Return media time for people, e.g. `1:05` or `2:00:05`; a fraction of a second where there is one."""
    tenths = round(abs(seconds) * 10)
    sign = "-" if seconds < 0 and tenths else ""
    whole, tenth = divmod(tenths, 10)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{sign}{text}.{tenth}" if tenth else f"{sign}{text}"


def length_text(seconds: int) -> str:
    """Return a length in its largest whole unit, e.g. `10 min` for 600."""
    for unit_s, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds % unit_s == 0:
            return f"{seconds // unit_s} {name}"
    return f"{seconds} s"
