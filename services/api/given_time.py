"""Times in what clients define: ISO 8601 with an offset, seconds or milliseconds since 1970, or relative to the present."""

import math
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AwareDatetime, BeforeValidator, TypeAdapter, ValidationError, WithJsonSchema

from moodline.services.report.moments import EPOCH, iso, to_datetime, to_us
from moodline.shared.errors import ParameterError, QueryError
from moodline.shared.timeline.times import is_absolute, parse_time

_LAST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_FORMS: Final = (
    "must be ISO 8601 with an offset such as 2026-05-01T12:00:00Z, seconds or milliseconds since 1970, or relative like now-5m"
)
_RANGE: Final = "must lie between the years 1970 and 2200"
_DATES: Final = (4, 8)
"""Numbers of this many digits are a year or a date without a time, not seconds: those would lie before 1974."""
_iso: Final = TypeAdapter[datetime](AwareDatetime)


def given_us(text: str, now_us: int, field: str) -> int:
    """Return a checked time, microseconds since the Unix epoch.

    Args:
        text: What `GivenTime` has checked.
        now_us: The present.
        field: Name of the field, for the error.

    Raises:
        ParameterError: a relative time lies outside the years 1970 to 2200.
    """
    try:
        moment = to_datetime(parse_time(text, now_us, field))
    except QueryError:
        moment = _LAST
    if not EPOCH <= moment < _LAST:
        raise ParameterError(field, f"{field}: {_RANGE}")
    return to_us(moment)


def check_time(value: object) -> str:
    """Return a time as a text that `given_us` takes. Raises `ValueError`, which says what is allowed."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        value = f"{value:f}" if isinstance(value, float) else str(value)
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError(_FORMS)
    word = value.strip()
    if not is_absolute(word):
        return _understood(word)
    if word.isascii() and word.replace(".", "", 1).isdecimal():
        if len(word) in _DATES:
            raise ValueError(_FORMS)
        moment = to_datetime(parse_time(_understood(word), 0))
    else:
        try:
            moment = _iso.validate_python(word)
        except ValidationError:
            raise ValueError(_FORMS) from None
    if not EPOCH <= moment < _LAST:
        raise ValueError(_RANGE)
    return iso(moment)


def _understood(word: str) -> str:
    try:
        parse_time(word, to_us(datetime(2026, 1, 1, tzinfo=UTC)))
    except QueryError:
        raise ValueError(_FORMS) from None
    return word


GivenTime = Annotated[
    str,
    BeforeValidator(check_time),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}], "examples": ["2026-05-01T12:00:00Z"]}),
]
"""A time in a body, header or parameter, checked."""
