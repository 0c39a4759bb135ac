"""Frames are placed exactly, and never go back in time."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.file.frame_times import LIMIT_S, FrameTimes

BASE = Fraction(1, 90_000)
stamps = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-1000, 1_000_000))


def test_time_stamps_count_exactly_from_the_start_of_the_file() -> None:
    times = FrameTimes(Fraction(1, 30_000), Fraction(1001, 30_000), Fraction(30_000, 1001))
    placed = [times.place(1001 * n, None, 1001) for n in range(1, 5)]
    assert placed == [Fraction(1001 * n, 30_000) for n in range(4)]
    assert times.end_s == Fraction(1001 * 4, 30_000)


def test_a_picture_that_begins_after_the_sound_keeps_its_delay() -> None:
    times = FrameTimes(BASE, Fraction(1), None)
    assert times.place(2 * 90_000, None, 0) == 1


def test_variable_frame_rate_keeps_every_gap() -> None:
    times = FrameTimes(Fraction(1, 1000), Fraction(0), Fraction(30))
    assert [times.place(at, at, 0) for at in (0, 40, 1000, 1001)] == [Fraction(at, 1000) for at in (0, 40, 1000, 1001)]


def test_without_presentation_times_decoding_times_count_from_the_first() -> None:
    times = FrameTimes(Fraction(1, 25), Fraction(0), Fraction(25))
    placed = [times.place(pts, dts, 1) for pts, dts in [(None, 2), (3, 3), (None, 4), (None, None)]]
    assert placed == [Fraction(n, 25) for n in range(4)]


def test_without_any_time_stamps_the_frame_rate_counts() -> None:
    times = FrameTimes(Fraction(1, 1_200_000), None, Fraction(25))
    assert [times.place(None, None, 0) for _ in range(3)] == [Fraction(n, 25) for n in range(3)]


def test_a_step_back_is_held_at_the_frame_before() -> None:
    times = FrameTimes(Fraction(1, 10), Fraction(0), Fraction(10))
    assert [times.place(at, None, 1) for at in (0, 5, 2, 6)] == [Fraction(at, 10) for at in (0, 5, 5, 6)]


def test_an_absurd_time_stamp_is_taken_for_none() -> None:
    times = FrameTimes(Fraction(1), Fraction(0), Fraction(2))
    assert [times.place(at, None, 0) for at in (0, 2**62, 1)] == [Fraction(0), Fraction(1, 2), Fraction(1)]


@given(
    st.lists(st.tuples(stamps, stamps, st.integers(0, 2**62)), max_size=30), st.sampled_from([None, Fraction(0), Fraction(7, 3)])
)
def test_whatever_the_file_says_time_never_goes_back_and_fits_a_timeline(
    frames: list[tuple[int | None, int | None, int]], start_s: Fraction | None
) -> None:
    times, last = FrameTimes(BASE, start_s, Fraction(25)), Fraction(0)
    for number, (pts, dts, duration) in enumerate(frames, 1):
        at = times.place(pts, dts, duration)
        assert last <= at <= times.end_s <= number * LIMIT_S + LIMIT_S
        last = at
