"""Smoothing: integers, exact sums, and time instead of frames."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.aggregator.smoothing import ONE, advance, decay, quantise, start

SCALE = 65_535
SECOND_US = 1_000_000


@st.composite
def probabilities(draw: st.DrawFn) -> tuple[int, ...]:
    cuts = sorted(draw(st.lists(st.integers(0, SCALE), min_size=6, max_size=6)))
    return tuple(high - low for low, high in zip([0, *cuts], [*cuts, SCALE], strict=True))


STEP_US = st.integers(0, 5 * SECOND_US)
TAU_US = st.integers(1_000, 60 * SECOND_US)


@given(STEP_US, TAU_US)
def test_decay_is_the_exponential(dt_us: int, tau_us: int) -> None:
    assert decay(dt_us, tau_us) / ONE == pytest.approx(math.exp(-dt_us / tau_us), abs=1e-7)


def test_decay_is_the_same_number_on_every_machine() -> None:
    assert [decay(dt_us, SECOND_US) for dt_us in (0, 33_366, 33_367, 200_000, SECOND_US, 10**12)] == [
        4_294_967_296,
        4_154_025_843,
        4_154_021_724,
        3_516_421_828,
        1_580_030_182,
        0,
    ]


@given(st.lists(st.tuples(probabilities(), STEP_US), min_size=1, max_size=30), st.one_of(st.just(0), TAU_US))
def test_smoothed_probabilities_always_sum_to_the_scale(steps: list[tuple[tuple[int, ...], int]], tau_us: int) -> None:
    state = start(steps[0][0])
    for seen, dt_us in steps:
        state = advance(state, seen, dt_us, tau_us)
        smoothed = quantise(state)
        assert sum(smoothed) == SCALE
        assert all(0 <= value <= SCALE for value in smoothed)


@given(probabilities())
def test_the_first_observation_is_taken_as_it_is(seen: tuple[int, ...]) -> None:
    assert quantise(start(seen)) == seen


@given(probabilities(), probabilities(), STEP_US)
def test_without_a_time_constant_nothing_is_smoothed(before: tuple[int, ...], seen: tuple[int, ...], dt_us: int) -> None:
    assert quantise(advance(start(before), seen, dt_us, 0)) == seen


@given(probabilities(), probabilities(), TAU_US)
def test_a_second_observation_at_the_same_instant_has_no_weight(
    before: tuple[int, ...], seen: tuple[int, ...], tau_us: int
) -> None:
    assert quantise(advance(start(before), seen, 0, tau_us)) == before


@given(probabilities(), probabilities(), st.integers(1, 30))
def test_it_converges_to_what_is_seen_for_long(before: tuple[int, ...], seen: tuple[int, ...], fps: int) -> None:
    state = start(before)
    for _ in range(15 * fps):
        state = advance(state, seen, SECOND_US // fps, SECOND_US)
    assert max(abs(a - b) for a, b in zip(quantise(state), seen, strict=True)) <= 1


@given(probabilities(), probabilities(), st.integers(1, 60), TAU_US)
def test_it_depends_on_time_and_not_on_the_frame_rate(
    before: tuple[int, ...], seen: tuple[int, ...], frames: int, tau_us: int
) -> None:
    often = start(before)
    for frame in range(frames):
        dt_us = (frame + 1) * SECOND_US // frames - frame * SECOND_US // frames
        often = advance(often, seen, dt_us, tau_us)
    once = advance(start(before), seen, SECOND_US, tau_us)
    assert max(abs(a - b) for a, b in zip(quantise(often), quantise(once), strict=True)) <= 2


@given(probabilities(), probabilities(), STEP_US, TAU_US)
def test_a_smoothed_value_lies_between_old_and_new(
    before: tuple[int, ...], seen: tuple[int, ...], dt_us: int, tau_us: int
) -> None:
    smoothed = quantise(advance(start(before), seen, dt_us, tau_us))
    for old, new, value in zip(before, seen, smoothed, strict=True):
        assert min(old, new) - 1 <= value <= max(old, new) + 1


def test_after_one_time_constant_63_percent_of_a_change_are_seen() -> None:
    angry, happy = (SCALE, 0, 0, 0, 0, 0, 0), (0, 0, 0, SCALE, 0, 0, 0)
    smoothed = quantise(advance(start(angry), happy, SECOND_US, SECOND_US))
    assert smoothed[3] == round(SCALE * (1 - math.exp(-1)))
    assert smoothed[0] == SCALE - smoothed[3]


def test_a_series_of_observations_gives_the_same_bits_on_every_machine() -> None:
    state = start((0, 0, 0, SCALE, 0, 0, 0))
    seen = [(9000, 1, 20_000, 30_000, 534, 2000, 4000), (0, 0, 0, 0, SCALE, 0, 0), (1, 2, 3, 4, 5, 6, 65_514)] * 3
    for step, values in enumerate(seen):
        state = advance(state, values, 33_366 + step, SECOND_US)
    assert state == (49_317_326, 17_195, 109_598_614, 3_345_087_129, 374_220_165, 10_993_250, 405_668_083)
    assert quantise(state) == (753, 0, 1672, 51_042, 5710, 168, 6190)


def test_rounding_goes_to_the_largest_remainders_and_of_equals_to_the_first() -> None:
    assert quantise((1, 1, 1, 1, 1, 1, 1)) == (9363, 9362, 9362, 9362, 9362, 9362, 9362)
    assert quantise((0, 0, 0, 2, 1, 0, 0)) == (0, 0, 0, 43_690, 21_845, 0, 0)


def test_a_vector_of_zeros_does_no_harm() -> None:
    assert quantise(advance(start((0,) * 7), (0,) * 7, SECOND_US, SECOND_US)) == (0,) * 7
