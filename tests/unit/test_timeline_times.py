"""Times and lengths as people write them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.errors import QueryError
from moodline.shared.timeline import parse_resolution, parse_time

NOON_US = 1_777_636_800_000_000  # 2026-05-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("2026-05-01T12:00:00Z", NOON_US),
        ("2026-05-01T12:00:00", NOON_US),
        ("2026-05-01 12:00", NOON_US),
        ("2026-05-01T14:00:00+02:00", NOON_US),
        ("2026-05-01", NOON_US - 12 * 3_600_000_000),
        ("2026-05-01T12:00:00.000001Z", NOON_US + 1),
        ("1969-12-31T23:59:59Z", -1_000_000),
        ("now", NOON_US),
        (" now ", NOON_US),
        ("-1h", NOON_US - 3_600_000_000),
        ("-90s", NOON_US - 90_000_000),
        ("-250ms", NOON_US - 250_000),
        ("-2m", NOON_US - 120_000_000),
        ("-2min", NOON_US - 120_000_000),
        ("-1d", NOON_US - 86_400_000_000),
        ("-0s", NOON_US),
        ("1777636800", NOON_US),
        ("1777636800000", NOON_US),
        ("1777636800.25", NOON_US + 250_000),
        ("1777636800000.5", NOON_US + 500),
        ("0", 0),
        ("20260501", NOON_US - 12 * 3_600_000_000),
        ("now-5m", NOON_US - 300_000_000),
        ("now-1h+30m", NOON_US - 1_800_000_000),
        ("now/d", NOON_US - 12 * 3_600_000_000),
        ("now-1d/d", NOON_US - 36 * 3_600_000_000),
        ("now-1w", NOON_US - 7 * 86_400_000_000),
        ("now-2M", NOON_US - 61 * 86_400_000_000),
        ("now/w", NOON_US - 4 * 86_400_000_000 - 12 * 3_600_000_000),
        ("now-1y/y", NOON_US - (365 + 120) * 86_400_000_000 - 12 * 3_600_000_000),
    ],
)
def test_times_that_people_write(text: str, expected_us: int) -> None:
    assert parse_time(text, NOON_US) == expected_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "-1",
        "-h",
        "-1w",
        "+1h",
        "--1h",
        "-1.5h",
        "12:00",
        "2026-13-01",
        "2026",
        "12345678901234567",
        "1777636800s",
        "now-5",
        "now5m",
        "now-1w2",
        "now/x",
        "1899-12-31",
        "2300-01-01",
        "9999-12-31T23:59:59Z",
        "0001-01-01",
        "-1000000d",
        "-999999999999999d",
        "-\u0661h",
    ],
)
def test_anything_else_is_refused_and_named(text: str) -> None:
    with pytest.raises(QueryError, match="to:") as caught:
        parse_time(text, NOON_US, field="to")
    assert caught.value.field == "to"


def test_rounding_goes_to_the_end_where_a_window_ends() -> None:
    assert parse_time("now/d", NOON_US, "to") == NOON_US + 12 * 3_600_000_000
    assert parse_time("now-1M/M", 1_774_958_400_000_000, "from") == 1_769_904_000_000_000  # of 31 March: 1 February


def test_a_zone_whose_plus_was_lost_in_a_url_gets_a_hint() -> None:
    with pytest.raises(QueryError, match="%2B"):
        parse_time("2026-05-01T14:00:00 02:00", NOON_US)


def test_an_error_does_not_repeat_a_long_text() -> None:
    with pytest.raises(QueryError) as caught:
        parse_time("x" * 10_000, NOON_US)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("10s", 10),
        ("1min", 60),
        ("1m", 60),
        ("10min", 600),
        ("1h", 3600),
        ("2d", 172_800),
        ("366d", 31_622_400),
        ("7s", 7),
        ("1000ms", 1),
    ],
)
def test_resolutions_that_people_write(text: str, expected_s: int) -> None:
    assert parse_resolution(text) == expected_s


@pytest.mark.parametrize("text", ["", "0s", "10", "-10s", "500ms", "1500ms", "1.5s", "10 s", "1y", "367d", "999999999999999d"])
def test_other_resolutions_are_refused(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_resolution(text)
    assert caught.value.field == "resolution"


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_query_error(text: str) -> None:
    for parse in (lambda: parse_time(text, NOON_US), lambda: parse_resolution(text)):
        with suppress(QueryError):
            assert isinstance(parse(), int)
