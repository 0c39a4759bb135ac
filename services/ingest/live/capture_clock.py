"""From a camera's clocks to event time: capture wall-clock that never goes back, however the camera's clock behaves. Pure.

A camera's media clock is compared with arrival. The smallest difference seen is that of a frame which the network did not delay,
so jitter does not show; it is let go of slowly, so that it follows a clock which drifts. A camera that tells the time of day, and
tells it right, is believed, but by the middle of what it told lately: single reports may be seconds off. A media clock that does
not run (all time stamps alike, or at another rate than frames come) is no clock: then a frame is taken when it arrives.

A segment ends where the media clock itself was set or began again. All else bends event time slowly.
"""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import Final

_JUMP_US: Final = 1_000_000
"""A clock that differs by more from what it was, compared with arrival, was set or began again."""
_LATE_LIMIT_US: Final = 5_000_000
"""Frames may be delayed by more than `_JUMP_US` for this long; then it is the clock."""
_LET_GO: Final = 2_000
"""The smallest difference rises by 1/2000 of the time: more than any good clock drifts, and too slow for jitter to show."""
_BLOCK_US: Final = 4_000_000
_BLOCKS: Final = 5
"""Over so many blocks of time the smallest differences show whether the clock runs at a rate that is a little wrong."""
_SKEW_MOST: Final = 0.035
"""A clock that is farther from the right rate for so long is none; event time could not be bent that fast."""
_SLEW: Final = 20
"""Corrections are spread: event time runs by 1/20 faster or slower until they are done."""
_SLEW_STEP_US: Final = 1_000_000
_NEW_REPORT_US: Final = 50_000
"""A relation of both of the camera's clocks that changes by more is that of another report."""
_REPORTS: Final = 5
_SAME_REPORT_US: Final = 10_000_000
"""A relation that stays for so long counts as told again."""
_RATE_WINDOW_US: Final = 2_000_000
_RATE_LEAST, _RATE_MOST = 0.8, 1.25
"""Media time per time of arrival, of a clock that runs."""
_BAD_WINDOWS: Final = 2
_GOOD_WINDOWS: Final = 5
_STILL_FRAMES: Final = 3
_STILL_US: Final = 200_000
_JUMPS_BORNE: Final = 2
_JUMPS_OVER_US: Final = 300_000_000


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame's place. `segment` rises by one when the camera's clock was set or began again.

    `late_us` says by how much later the frame arrived than the quickest ones do, in us; 0 where that is not known.
    """

    event_time_us: int
    segment: int
    late_us: int = 0


class _Skew:
    """How much slower than it should the media clock runs, by the frames that were delayed least. All in us."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, int]] = deque(maxlen=_BLOCKS)
        self._end_us: int | None = None
        self._least_us = 0
        self.share = 0.0
        """Part of the time that passes; 0 while none is sure."""

    def follow(self, difference_us: int, arrived_us: int) -> None:
        """Take in one frame's difference of arrival and clock."""
        if self._end_us is None or arrived_us >= self._end_us:
            if self._end_us is not None:
                self._blocks.append((self._end_us, self._least_us))
                self.share = self._measured()
            self._end_us, self._least_us = arrived_us + _BLOCK_US, difference_us
        self._least_us = min(self._least_us, difference_us)

    def _measured(self) -> float:
        if len(self._blocks) < _BLOCKS:
            return 0.0
        steps = [after[1] - before[1] for before, after in pairwise(self._blocks)]
        if min(steps) <= 0 <= max(steps):
            # What goes up and down is delay.
            return 0.0
        return (self._blocks[-1][1] - self._blocks[0][1]) / (self._blocks[-1][0] - self._blocks[0][0])


class _Tracker:
    """The camera's media clock against arrival, all in us."""

    def __init__(self) -> None:
        self.skew = _Skew()
        self._last_us: int | None = None
        self._arrived_us = 0
        self.offset_us = 0
        """Smallest difference, arrival minus clock, lately."""
        self.late_us = 0
        self._late_since_us: int | None = None
        self._least_late_us = 0

    def begin(self, clock_us: int, arrived_us: int) -> None:
        """Begin again with this frame."""
        self._last_us, self._arrived_us, self.offset_us = clock_us, arrived_us, arrived_us - clock_us
        self.skew = _Skew()
        self._late_since_us, self.late_us = None, 0

    def follow(self, clock_us: int, arrived_us: int, *, lateness_is_true: bool) -> bool:
        """Take in one frame; returns whether the clock jumped. `lateness_is_true`: another clock says that frames are late."""
        difference_us = arrived_us - clock_us
        if self._last_us is None:
            self.begin(clock_us, arrived_us)
            return False
        was_us = self._arrived_us - self._last_us
        went_back = clock_us < self._last_us and difference_us - was_us > _JUMP_US
        if went_back or difference_us < self.offset_us - _JUMP_US:
            self.begin(clock_us, arrived_us)
            return True
        elapsed_us = max(0, arrived_us - self._arrived_us)
        self._last_us, self._arrived_us = clock_us, arrived_us
        self.skew.follow(difference_us, arrived_us)
        # Faster than the clock falls behind, so that what it lost before this was known is made up for.
        let_go_us = elapsed_us // _LET_GO + int(1.5 * elapsed_us * max(0.0, self.skew.share))
        self.offset_us = min(difference_us, self.offset_us + let_go_us)
        self.late_us = difference_us - self.offset_us
        return self._is_late_for_long(difference_us, arrived_us, lateness_is_true)

    def _is_late_for_long(self, difference_us: int, arrived_us: int, lateness_is_true: bool) -> bool:
        """Return whether all frames have been late for so long that the clock is wrong. Then the offset is corrected."""
        if self.late_us <= _JUMP_US or lateness_is_true:
            self._late_since_us = None
            return False
        if self._late_since_us is None:
            self._late_since_us, self._least_late_us = arrived_us, difference_us
        self._least_late_us = min(self._least_late_us, difference_us)
        if arrived_us - self._late_since_us < _LATE_LIMIT_US:
            return False
        self.offset_us, self._late_since_us = self._least_late_us, None
        return True


class _RateWatch:
    """Whether the media clock runs as fast as frames arrive. All in us."""

    def __init__(self) -> None:
        self._begin: tuple[int, int] | None = None
        self._last_us: int | None = None
        self._still_frames = 0
        self._still_since_us = 0
        self._bad = self._good = 0
        self._jumps: deque[int] = deque(maxlen=_JUMPS_BORNE + 1)
        self.runs = True

    def follow(self, clock_us: int, arrived_us: int) -> None:
        """Take in one frame."""
        if clock_us != self._last_us:
            self._still_frames, self._still_since_us = 0, arrived_us
        else:
            self._still_frames += 1
            if self._still_frames >= _STILL_FRAMES and arrived_us - self._still_since_us >= _STILL_US:
                self._stopped()
        self._last_us = clock_us
        if self._begin is None:
            self._begin = clock_us, arrived_us
            return
        elapsed_us = arrived_us - self._begin[1]
        if elapsed_us >= _RATE_WINDOW_US:
            self._check_rate((clock_us - self._begin[0]) / elapsed_us)
            self._begin = clock_us, arrived_us

    def drifted(self) -> None:
        """Note that the clock's rate is wrong over a longer time."""
        self._stopped()

    def jumped(self, arrived_us: int) -> None:
        """Note that the clock jumped; one that does so again and again does not run."""
        self._begin = None
        self._jumps.append(arrived_us)
        if len(self._jumps) > _JUMPS_BORNE and arrived_us - self._jumps[0] < _JUMPS_OVER_US:
            self._stopped()

    def _check_rate(self, rate: float) -> None:
        if _RATE_LEAST <= rate <= _RATE_MOST:
            self._bad, self._good = 0, self._good + 1
            if self._good >= _GOOD_WINDOWS:
                self.runs = True
        else:
            self._bad, self._good = self._bad + 1, 0
            if self._bad >= _BAD_WINDOWS:
                self._stopped()

    def _stopped(self) -> None:
        self.runs, self._good = False, 0


class _TimeOfDay:
    """The time of day that the camera tells: its relation to the media clock, by the middle of the last reports. All in us."""

    def __init__(self) -> None:
        self._leads_us: deque[int] = deque(maxlen=_REPORTS)
        self._told_us = 0

    def follow(self, media_us: int, camera_us: int) -> int:
        """Take in one frame; return how far the time of day is ahead of the media clock."""
        lead_us = camera_us - media_us
        is_same = bool(self._leads_us) and abs(lead_us - self._leads_us[-1]) <= _NEW_REPORT_US
        if is_same and media_us - self._told_us < _SAME_REPORT_US:
            self._leads_us[-1] = lead_us
        else:
            self._leads_us.append(lead_us)
            self._told_us = media_us
        return median_low(self._leads_us)


class CaptureClock:
    """Places the frames of one connection in time. Not thread-safe, but for `offset_ms`."""

    def __init__(self, tolerance_s: float, not_before_us: int) -> None:
        """Start before the first frame.

        Args:
            tolerance_s: A camera's clock that differs from arrival by more is not believed, in s. No event time is farther
                from arrival, unless it would have to go back.
            not_before_us: Every event time is later than this.
        """
        self._tolerance_us = round(tolerance_s * 1e6)
        self._last_event_us = not_before_us
        self._last_media_us: int | None = None
        self._arrived_us = 0
        self._media = _Tracker()
        self._rate = _RateWatch()
        self._time_of_day: _TimeOfDay | None = None
        self._is_believed = self._is_doubted = False
        self._segment = 0
        self._runs = True
        self._applied_us = 0
        self._last_clock_us = 0
        self.offset_ms: int | None = None
        """How far the camera's clock is ahead of ours, in ms; None where it tells no time."""

    def place(self, media_s: Fraction, arrived_s: float, camera_s: float | None) -> Placed:
        """Return where a frame belongs.

        Args:
            media_s: Time on the camera's media clock, in s, of unknown origin.
            arrived_s: Wall clock of its arrival, in s since the Unix epoch.
            camera_s: When it was taken by the camera's own clock, in s since the Unix epoch, or None.

        Returns:
            An event time later than all before; within the tolerance of arrival, but where arrival itself went back.
        """
        media_us, arrived_us = round(media_s * 1_000_000), round(arrived_s * 1e6)
        camera_us = None if camera_s is None else round(camera_s * 1e6)
        spacing_us = 0 if self._last_media_us is None else media_us - self._last_media_us
        is_first = self._last_media_us is None
        jumped = self._follow(media_us, arrived_us)
        clock_us, target_us = self._target(media_us, camera_us, arrived_us)
        if is_first or jumped:
            # A new segment begins where its clock says, unless that were in the past: then it follows what there is, and
            # falls back to its clock slowly.
            waited_us = 1 if is_first else max(1, arrived_us - self._arrived_us)
            behind_us = self._last_event_us + waited_us - (clock_us + target_us)
            self._applied_us = target_us + min(max(0, behind_us), self._tolerance_us)
        elif self._rate.runs != self._runs:
            # Another clock: event time goes on from where it is.
            step_us = max(1, arrived_us - self._arrived_us)
            self._applied_us = self._last_event_us + step_us - clock_us
        else:
            self._bend(target_us, clock_us, arrived_us)
        self._runs = self._rate.runs
        self._segment += jumped
        self._last_media_us, self._arrived_us = media_us, arrived_us
        self._last_clock_us = clock_us
        event_us = clock_us + self._applied_us
        event_us = min(max(event_us, arrived_us - self._tolerance_us), arrived_us + self._tolerance_us)
        if self._last_event_us - arrived_us > 2 * self._tolerance_us:
            # Our own clock was set back. Until it has caught up, frames have half their spacing: else all were one instant.
            event_us = self._last_event_us + min(spacing_us // 2, self._tolerance_us)
        self._last_event_us = max(event_us, self._last_event_us + 1)
        return Placed(self._last_event_us, self._segment, self._media.late_us if self._runs else 0)

    def _follow(self, media_us: int, arrived_us: int) -> bool:
        """Compare the media clock with arrival; return whether it was set or began again."""
        self._rate.follow(media_us, arrived_us)
        if not self._rate.runs:
            self._media.begin(media_us, arrived_us)
            return False
        jumped = self._media.follow(media_us, arrived_us, lateness_is_true=self._is_believed)
        if abs(self._media.skew.share) > _SKEW_MOST:
            self._rate.drifted()
        elif jumped:
            self._rate.jumped(arrived_us)
            self._time_of_day = None
        # One that jumps on and on is no clock, and then this was no jump of one.
        return jumped and self._rate.runs

    def _target(self, media_us: int, camera_us: int | None, arrived_us: int) -> tuple[int, int]:
        """Return the clock that is used, and what is to be added to it, in us since the Unix epoch."""
        if not self._rate.runs:
            self.offset_ms = None if camera_us is None else round((camera_us - arrived_us) / 1000)
            self._is_believed = False
            return arrived_us, 0
        if camera_us is None:
            self._time_of_day, self.offset_ms, self._is_believed = None, None, False
            return media_us, self._media.offset_us
        if self._time_of_day is None:
            self._time_of_day = _TimeOfDay()
        lead_us = self._time_of_day.follow(media_us, camera_us)
        ahead_us = lead_us - self._media.offset_us
        self.offset_ms = round(ahead_us / 1000)
        # Once it is not believed it has to be clearly right to be believed again, so a clock at the limit does not flicker.
        limit_us = self._tolerance_us // 2 if self._is_doubted else self._tolerance_us
        self._is_believed = abs(ahead_us) <= limit_us
        self._is_doubted = not self._is_believed
        return media_us, lead_us if self._is_believed else self._media.offset_us

    def _bend(self, target_us: int, clock_us: int, arrived_us: int) -> None:
        """Move what is added towards what it should be, by at most a part of the time that has passed."""
        passed_us = max(0, clock_us - self._last_clock_us, arrived_us - self._arrived_us)
        most_us = min(passed_us, _SLEW_STEP_US) // _SLEW
        self._applied_us += min(max(target_us - self._applied_us, -most_us), most_us)
