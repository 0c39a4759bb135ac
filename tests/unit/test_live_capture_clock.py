"""Event time of live frames: never back, near to arrival, and true to the camera's spacing, whatever its clock does."""

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.live.capture_clock import CaptureClock, Placed

START_S = 1_700_000_000.0
TOLERANCE_S = 5.0
FRAME_S = 0.04

Times = tuple[float, float, float | None]
"""media_s, arrived_s, camera_s"""


def place_all(times: list[Times], not_before_us: int = 0) -> list[Placed]:
    clock = CaptureClock(TOLERANCE_S, not_before_us)
    return [clock.place(Fraction(media_s), arrived_s, camera_s) for media_s, arrived_s, camera_s in times]


def distances_s(times: list[Times], placed: list[Placed]) -> list[float]:
    return [at.event_time_us / 1e6 - arrived_s for at, (_, arrived_s, _) in zip(placed, times, strict=True)]


def steps_us(placed: list[Placed]) -> list[int]:
    return [b.event_time_us - a.event_time_us for a, b in itertools.pairwise(placed)]


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3),
            st.one_of(st.floats(-1, 1), st.floats(-1e5, 1e5)),
            st.one_of(st.none(), st.floats(-1, 1), st.floats(-1e5, 1e5)),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_the_clocks_do_time_goes_on_and_stays_near_arrival(moves: list[tuple[float, float, float | None]]) -> None:
    arrived_s, times = START_S, []
    for waited_s, media_off_s, camera_off_s in moves:
        arrived_s += waited_s
        camera_s = None if camera_off_s is None else arrived_s + camera_off_s
        times.append((arrived_s - START_S + media_off_s, arrived_s, camera_s))
    placed = place_all(times)
    assert all(step >= 1 for step in steps_us(placed))
    # 1 us per frame: frames that arrive at the same instant still follow each other.
    assert max(abs(distance) for distance in distances_s(times, placed)) <= TOLERANCE_S + len(times) * 1e-6 + 1e-6
    segments = [at.segment for at in placed]
    assert segments[0] == 0
    assert all(0 <= b - a <= 1 for a, b in itertools.pairwise(segments))


@given(st.integers(0, 2**32), st.sampled_from([None, 0.3, -2.0, 3600.0, -3600.0]))
def test_jitter_of_the_network_does_not_show(seed: int, ahead_s: float | None) -> None:
    dice = random.Random(seed)
    times: list[Times] = []
    for number in range(400):
        taken_s = START_S + number * FRAME_S
        arrived_s = max(taken_s + dice.expovariate(50), times[-1][1] if times else 0)
        times.append((number * FRAME_S, arrived_s, None if ahead_s is None else taken_s + ahead_s))
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    # Once a frame that came quickly has been seen, the spacing is the camera's: only a quicker one moves it, and that is rare.
    errors_us = [abs(step - 40_000) for step in steps_us(placed[100:])]
    assert sum(error > 100 for error in errors_us) <= len(errors_us) * 0.15
    assert max(errors_us) < 15_000


@pytest.mark.parametrize("off_s", [3600.0, -3600.0])
def test_a_clock_an_hour_off_gives_the_spacing_alone_and_is_reported(off_s: float) -> None:
    clock = CaptureClock(TOLERANCE_S, 0)
    for number in range(100):
        arrived_s = START_S + number * FRAME_S
        placed = clock.place(Fraction(number, 25), arrived_s, arrived_s + off_s)
        assert abs(placed.event_time_us / 1e6 - arrived_s) < 0.01
    assert clock.offset_ms == pytest.approx(off_s * 1000, abs=1)
    assert placed.segment == 0


def test_a_clock_within_the_tolerance_is_believed() -> None:
    times = [(n * FRAME_S, START_S + n * FRAME_S + 0.2, START_S + n * FRAME_S) for n in range(50)]
    placed = place_all(times)
    assert [at.event_time_us for at in placed] == [round((START_S + n * FRAME_S) * 1e6) for n in range(50)]


@pytest.mark.parametrize("step_s", [3.0, -3.0, 7200.0, -7200.0])
def test_a_clock_that_is_set_bends_time_and_cuts_nothing(step_s: float) -> None:
    times = [(n * FRAME_S, START_S + n * FRAME_S, START_S + n * FRAME_S + (step_s if n >= 50 else 0)) for n in range(3000)]
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    assert all(37_900 <= step <= 42_100 for step in steps_us(placed))
    assert max(abs(distance) for distance in distances_s(times, placed)) <= TOLERANCE_S


def with_reports(offs_s: list[float], frames: int = 125) -> list[Times]:
    """Return the frames of a camera whose sender reports, one in 5 s, are off by so much."""
    return [
        (n * FRAME_S, START_S + n * FRAME_S, START_S + n * FRAME_S + off_s)
        for number, off_s in enumerate(offs_s)
        for n in range(number * frames, (number + 1) * frames)
    ]


def test_sender_reports_that_jitter_cut_nothing_and_hardly_show() -> None:
    dice = random.Random(5)
    times = with_reports([dice.uniform(-2, 2) for _ in range(60)])
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    assert all(37_900 <= step <= 42_100 for step in steps_us(placed))


def test_a_first_sender_report_that_is_off_is_outvoted() -> None:
    times = with_reports([2.5, *[0.0] * 40])
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    assert abs(distances_s(times, placed)[-1]) < 0.01


def test_frames_out_of_order_across_a_report_that_is_off_cut_nothing() -> None:
    """B-frames: some of those after a report in order of decoding come before it in order of presentation."""
    times = with_reports([2.5, *[0.0] * 20])
    for place in range(124, len(times) - 3, 125):
        media_s, arrived_s, camera_s = times[place]
        assert camera_s is not None
        times[place] = (media_s, arrived_s, arrived_s + (times[place + 1][2] or 0.0) - times[place + 1][1])
    assert {at.segment for at in place_all(times)} == {0}


@pytest.mark.parametrize("camera", [None, 0.0])
def test_time_stamps_that_are_all_alike_give_way_to_arrival(camera: float | None) -> None:
    times: list[Times] = [(0.0, START_S + n / 25, None if camera is None else START_S) for n in range(2500)]
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    assert max(abs(distance) for distance in distances_s(times[50:], placed[50:])) < 0.3


@pytest.mark.parametrize("real_fps", [5.0, 15.0, 40.0])
def test_time_stamps_at_another_rate_than_the_frames_give_way_to_arrival(real_fps: float) -> None:
    times: list[Times] = [(n / 25, START_S + n / real_fps, None) for n in range(round(105 * real_fps))]
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    assert max(abs(distance) for distance in distances_s(times, placed)) < 4
    assert abs(distances_s(times, placed)[-1]) < 0.3
    steps = steps_us(placed)
    assert max(steps) < 1.5e6 / real_fps + 100_000


def test_a_clock_of_a_wrong_unit_gives_way_to_arrival() -> None:
    times: list[Times] = [(n * 40.0, START_S + n * FRAME_S, None) for n in range(500)]
    placed = place_all(times)
    assert placed[-1].segment <= 3
    assert abs(distances_s(times, placed)[-1]) < 0.1


def test_lateness_is_told() -> None:
    times: list[Times] = [
        (n * FRAME_S, START_S + n * FRAME_S + (2.0 if n >= 50 else 0), START_S + n * FRAME_S) for n in range(400)
    ]
    placed = place_all(times)
    assert placed[40].late_us == 0
    assert placed[-1].late_us == pytest.approx(2e6, abs=20_000)
    assert {at.segment for at in placed} == {0}


@pytest.mark.parametrize("ran_s", [0.5, 20.0])
def test_a_media_clock_that_begins_anew_begins_one_new_segment_if_it_jumps(ran_s: float) -> None:
    before = round(ran_s / FRAME_S)
    times: list[Times] = [(n * FRAME_S, START_S + n * FRAME_S, None) for n in range(before)]
    times += [(n * FRAME_S, START_S + (before + n) * FRAME_S, None) for n in range(200)]
    placed = place_all(times)
    assert placed[-1].segment == (1 if ran_s > 1 else 0)
    assert min(steps_us(placed)) >= 1
    assert max(abs(distance) for distance in distances_s(times, placed)) < 1.0


@pytest.mark.parametrize("ppm", [200, -200])
@pytest.mark.parametrize("tells_time", [True, False])
def test_drift_of_an_hour_does_not_pile_up(ppm: int, tells_time: bool) -> None:
    dice = random.Random(1)
    clock = CaptureClock(TOLERANCE_S, 0)
    farthest_s, last_us, segment = 0.0, 0, 0
    for number in range(3600 * 5):
        taken_s = number * 0.2
        own_s = taken_s * (1 + ppm * 1e-6)
        arrived_s = START_S + taken_s + dice.uniform(0.01, 0.05)
        # A clock that is off by an hour cannot be believed, so it has to be followed.
        placed = clock.place(Fraction(own_s), arrived_s, START_S - 3600 + own_s if tells_time else None)
        assert placed.event_time_us > last_us
        last_us, segment = placed.event_time_us, placed.segment
        farthest_s = max(farthest_s, abs(last_us / 1e6 - arrived_s))
    assert segment == 0
    assert farthest_s < 0.06


@pytest.mark.parametrize("ahead_s", [0.8, -0.8, 4.0, -4.0, 3600.0])
def test_time_that_the_camera_tells_late_moves_nothing_back_and_is_taken_over(ahead_s: float) -> None:
    times = [(n * FRAME_S, START_S + n * FRAME_S, START_S + n * FRAME_S + ahead_s if n >= 100 else None) for n in range(4000)]
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    # Spread: no step is off by more than a twentieth.
    assert all(37_900 <= step <= 42_100 for step in steps_us(placed))
    believed_s = ahead_s if abs(ahead_s) <= TOLERANCE_S else 0.0
    assert distances_s(times, placed)[-1] == pytest.approx(believed_s, abs=0.01)


def test_a_camera_that_stops_telling_the_time_goes_on() -> None:
    times = [(n * FRAME_S, START_S + n * FRAME_S, START_S + n * FRAME_S + 2 if n < 100 else None) for n in range(200)]
    assert all(37_900 <= step <= 42_100 for step in steps_us(place_all(times)))


def test_a_network_that_stalls_is_no_jump() -> None:
    """Nothing arrives for 3 s, then all of it at once."""
    times: list[Times] = []
    for number in range(300):
        taken_s = START_S + number * FRAME_S
        arrived_s = max(taken_s, START_S + 7) if 4 < taken_s - START_S < 7 else taken_s
        times.append((number * FRAME_S, arrived_s, None))
    placed = place_all(times)
    assert {at.segment for at in placed} == {0}
    assert all(abs(step - 40_000) < 4_000 for step in steps_us(placed))


def test_frames_that_all_come_late_from_now_on_begin_a_segment_after_a_while() -> None:
    times: list[Times] = [(n * FRAME_S, START_S + n * FRAME_S + (3.0 if n >= 50 else 0), None) for n in range(300)]
    placed = place_all(times)
    assert placed[60].segment == 0
    assert placed[-1].segment == 1
    assert distances_s(times, placed)[-1] == pytest.approx(0.0, abs=0.1)


def test_what_is_in_the_timeline_already_stays_before() -> None:
    not_before_us = round((START_S + 1) * 1e6)
    times: list[Times] = [(n * FRAME_S, START_S + n * FRAME_S, None) for n in range(100)]
    placed = place_all(times, not_before_us)
    assert placed[0].event_time_us > not_before_us
    # From there time goes on, so frames are sampled at once, and comes back to that of arrival.
    assert all(37_900 <= step <= 40_100 for step in steps_us(placed))
    assert distances_s(times, placed)[-1] < 0.9


def test_a_timeline_that_is_far_ahead_is_waited_for_and_then_all_is_as_ever() -> None:
    """Our own clock was an hour ahead once."""
    clock = CaptureClock(TOLERANCE_S, round((START_S + 3600) * 1e6))
    last_us = round((START_S + 3600) * 1e6)
    for number in range(9000):
        placed = clock.place(Fraction(number), START_S + number, None)
        assert placed.event_time_us > last_us
        last_us = placed.event_time_us
    assert last_us == round((START_S + 8999) * 1e6)
