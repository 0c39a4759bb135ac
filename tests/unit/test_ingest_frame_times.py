"""Frames are placed as a player shows them: exactly, and never back in time."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.file.frame_times import MAX_HOLD_DISCONTINUOUS_S, MAX_HOLD_S, FrameTimes, Stamp, shown

BASE = Fraction(1, 90_000)
stamps = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-1000, 1_000_000))


def placed(times: FrameTimes, frames: list[tuple[int | None, int | None, int]]) -> list[Fraction]:
    given_frames = ((number, Stamp(*frame)) for number, frame in enumerate(frames))
    found = list(shown(given_frames, times))
    assert [one.item for one in found] == list(range(len(frames)))
    assert all(before.until_s == after.from_s for before, after in pairwise(found))
    return [one.from_s for one in found]


def seconds(pts: list[int | None], max_hold_s: Fraction = MAX_HOLD_S) -> tuple[list[float], float]:
    """Place frames of one second each, by stamps in s."""
    times = FrameTimes(Fraction(1), None, Fraction(1), max_hold_s)
    at = placed(times, [(stamp, None, 0) for stamp in pts])
    return [float(value) for value in at], float(times.end_s)


def test_time_stamps_count_exactly_from_the_start_of_the_file() -> None:
    times = FrameTimes(Fraction(1, 30_000), Fraction(1001, 30_000), Fraction(30_000, 1001))
    assert placed(times, [(1001 * n, None, 1001) for n in range(1, 5)]) == [Fraction(1001 * n, 30_000) for n in range(4)]
    assert times.end_s == Fraction(1001 * 4, 30_000)


def test_a_picture_that_begins_after_the_sound_keeps_its_delay() -> None:
    assert placed(FrameTimes(BASE, Fraction(1), None), [(2 * 90_000, None, 0)]) == [1]


def test_variable_frame_rate_keeps_every_gap() -> None:
    times = FrameTimes(Fraction(1, 1000), Fraction(0), Fraction(30))
    assert placed(times, [(at, at, 0) for at in (0, 40, 1000, 1001)]) == [Fraction(at, 1000) for at in (0, 40, 1000, 1001)]


def test_without_presentation_times_decoding_times_count_from_the_first() -> None:
    times = FrameTimes(Fraction(1, 25), Fraction(0), Fraction(25))
    assert placed(times, [(None, dts, 1) for dts in (2, 3, 4, 5)]) == [Fraction(n, 25) for n in range(4)]


def test_without_any_time_stamps_the_frame_rate_counts() -> None:
    times = FrameTimes(Fraction(1, 1_200_000), None, Fraction(25))
    assert placed(times, [(None, None, 0)] * 3) == [Fraction(n, 25) for n in range(3)]


@pytest.mark.parametrize(
    ("name", "pts", "expected", "end"),
    [
        ("a long still", [0, 1, 100, 101], [0, 1, 100, 101], 102),
        ("restart", [0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 4, 5], 6),
        ("restart elsewhere", [0, 1, 2, 70, 71, 30, 31], [0, 1, 2, 70, 71, 72, 73], 74),
        ("overlap", [0, 1, 2, 3, 4, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8], 9),
        ("jump of a day", [0, 1, 86_400, 86_401], [0, 1, 2, 3], 4),
        ("one far ahead", [0, 1, 3000, 3, 4], [0, 1, 2, 3, 4], 5),
        ("one absurd", [0, 1, 2**62, 3, 4], [0, 1, 2, 3, 4], 5),
        ("one far back", [0, 1, -3000, 3, 4], [0, 1, 2, 3, 4], 5),
        ("the first is absurd", [2**61, 1, 2, 3], [0, 1, 2, 3], 4),
        ("the last is absurd", [0, 1, 2, 2**61], [0, 1, 2, 3], 4),
        ("negative", [-5, -4, -3], [0, 1, 2], 3),
        ("backwards throughout", [9, 8, 7, 6], [0, 1, 2, 3], 4),
        ("missing here and there", [0, None, 2, None, None, 5], [0, 1, 2, 3, 4, 5], 6),
        ("each twice", [0, 0, 2, 2, 4, 4], [0, 1, 2, 3, 4, 5], 6),
        ("each twice at double the rate", [0, 0, 1, 1, 2, 2], [0, 0.5, 1, 1.5, 2, 2.5], 3.5),
        ("thrice", [0, 0, 0, 3], [0, 0.125, 1.125, 3], 4),
    ],
)
def test_odd_time_stamps(name: str, pts: list[int | None], expected: list[float], end: float) -> None:
    assert seconds(pts) == (expected, end)


def test_containers_with_restarting_clocks_hold_a_picture_for_ten_seconds_at_most() -> None:
    assert seconds([0, 1, 11, 12], MAX_HOLD_DISCONTINUOUS_S) == ([0, 1, 11, 12], 13)
    assert seconds([0, 1, 12, 13], MAX_HOLD_DISCONTINUOUS_S) == ([0, 1, 2, 3], 4)


def test_one_stamp_for_all_frames_tells_nothing() -> None:
    at, end = seconds([7] * 100)
    assert len(set(at)) == 100
    assert 90 <= end <= 101


def test_frames_without_stamps_do_not_move_those_that_have_them() -> None:
    at, end = seconds([0, None, None, None, *range(1, 40)])
    assert at == sorted(set(at))
    assert end == 40


@given(
    st.lists(st.tuples(stamps, stamps, st.integers(0, 2**62)), max_size=30), st.sampled_from([None, Fraction(0), Fraction(7, 3)])
)
def test_whatever_the_file_says_time_never_goes_back_and_fits_a_timeline(
    frames: list[tuple[int | None, int | None, int]], start_s: Fraction | None
) -> None:
    times = FrameTimes(BASE, start_s, Fraction(25))
    at = placed(times, frames)
    assert at == sorted(at)
    assert not at or (at[0] >= 0 and times.end_s <= (len(frames) + 1) * (MAX_HOLD_S + 1))


@given(st.lists(st.integers(-10_000_000, 10_000_000), min_size=1, max_size=40))
def test_one_stamp_among_good_ones_moves_its_own_frame_alone(odd: list[int]) -> None:
    good = [n * 3600 for n in range(1, 21)]
    for position, value in enumerate(odd):
        if value in good:
            # Of two frames with one stamp nobody can say which is the odd one.
            continue
        at = 1 + position % 18
        pts: list[int | None] = [*good[:at], value, *good[at + 1 :]]
        found = placed(FrameTimes(BASE, None, Fraction(25)), [(stamp, None, 0) for stamp in pts])
        assert [*found[:at], *found[at + 1 :]] == [(stamp - 3600) * BASE for stamp in [*good[:at], *good[at + 1 :]]]
