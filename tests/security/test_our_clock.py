"""Our own clock a day ahead, and then right again: cameras go on, and say what is wrong."""

from fractions import Fraction
from itertools import pairwise

import pytest

from moodline.services.ingest.live.capture_clock import CaptureClock
from moodline.services.ingest.media.sampling import Sampler

DAY_S = 86_400.0
NOW_S = 1_777_636_800.0


@pytest.mark.parametrize("back_s", [600.0, 3600.0, DAY_S])
@pytest.mark.parametrize("tells_time", [False, True])
def test_frames_keep_their_spacing_when_our_clock_is_set_back(back_s: float, tells_time: bool) -> None:
    clock, sampler = CaptureClock(5.0, 0), Sampler("5")
    times, taken = [], 0
    for number in range(1200):
        arrived_s = NOW_S + number / 10 + (back_s if number < 600 else 0.0)
        camera_s = NOW_S + number / 10 if tells_time else None
        placed = clock.place(Fraction(number, 10), arrived_s, camera_s)
        times.append(placed.event_time_us)
        taken += number >= 600 and sampler.take(Fraction(placed.event_time_us, 1_000_000))
    assert all(later > earlier for earlier, later in pairwise(times))
    # Of 60 s at 10 frames/s, about 150 are analysed, not one.
    assert taken > 120
    assert (times[-1] - times[600]) / 1e6 == pytest.approx(59.9 / 2, rel=0.2)


def test_a_connection_that_begins_behind_its_timeline_goes_on_too() -> None:
    clock = CaptureClock(5.0, round((NOW_S + DAY_S) * 1e6))
    times = [clock.place(Fraction(number, 10), NOW_S + number / 10, None).event_time_us for number in range(100)]
    assert (times[-1] - times[0]) / 1e6 == pytest.approx(9.9 / 2, rel=0.1)
