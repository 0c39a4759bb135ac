"""Sampling is exact: it depends on time stamps alone and never drifts."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.media.sampling import Sampler
from moodline.shared.errors import InvalidStreamError

RATES = ["5", "0.5", "1", "29.97", "30000/1001", "24000/1001", "240", "1/7", "12.5"]
steps = st.lists(st.fractions(min_value=0, max_value=3, max_denominator=90_000), max_size=60)


def times(gaps: list[Fraction], start: Fraction = Fraction(0)) -> list[Fraction]:
    at, stamps = start, []
    for gap in gaps:
        stamps.append(at)
        at += gap
    return stamps


def sampled(rate: str, stamps: list[Fraction]) -> list[Fraction]:
    sampler = Sampler(rate)
    return [stamp for stamp in stamps if sampler.take(stamp)]


@given(steps, st.sampled_from(RATES))
def test_takes_the_first_frame_of_every_slot_that_has_one(gaps: list[Fraction], rate: str) -> None:
    stamps = times(gaps)
    taken = sampled(rate, stamps)
    first_of_slot: dict[int, Fraction] = {}
    for stamp in stamps:
        first_of_slot.setdefault(stamp * Fraction(rate) // 1, stamp)
    assert taken == list(first_of_slot.values())


@given(steps, st.sampled_from(RATES), st.integers(0, 60))
def test_what_is_taken_does_not_depend_on_what_comes_later(gaps: list[Fraction], rate: str, cut: int) -> None:
    stamps = times(gaps)
    head = sampled(rate, stamps[:cut])
    assert sampled(rate, stamps)[: len(head)] == head


@given(steps)
def test_all_takes_every_frame_also_two_at_one_time(gaps: list[Fraction]) -> None:
    stamps = times(gaps)
    assert sampled("all", stamps) == stamps


@pytest.mark.parametrize(
    ("fps", "rate", "each"), [("30000/1001", "30000/1001", 1), ("30000/1001", "7500/1001", 4), ("25", "5", 5)]
)
def test_hours_of_an_ntsc_film_keep_an_exact_pace(fps: str, rate: str, each: int) -> None:
    sampler = Sampler(rate)
    frames = (number / Fraction(fps) for number in range(40_000))
    assert [number for number, pts in enumerate(frames) if sampler.take(pts)] == list(range(0, 40_000, each))


def test_a_gap_in_the_video_is_not_made_up_for() -> None:
    assert sampled("5", [Fraction(n, 10) for n in (0, 1, 30, 31, 32)]) == [Fraction(0), Fraction(3), Fraction(32, 10)]


@pytest.mark.parametrize("text", ["", "0", "-1", "240.1", "1e3", "nan", "inf", "5/0", "1/0", " 5", "\u0665", "5,0", "0x5", "ALL"])
def test_refuses_what_is_no_rate(text: str) -> None:
    with pytest.raises(InvalidStreamError) as caught:
        Sampler(text)
    assert caught.value.field == "sample_fps"
