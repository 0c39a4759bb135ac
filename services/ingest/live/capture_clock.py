"""From a camera's clocks to event time: capture wall-clock that never goes back, however the camera's clock behaves. Pure.

A camera's clock is compared with arrival. The smallest difference seen is that of a frame which the network did not delay, so
jitter does not show; it is let go of slowly, so that it follows a clock which drifts. A camera that tells the time of day, and
tells it right, is believed; one that is an hour off gives the spacing of frames only.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

_JUMP_US: Final = 1_000_000
"""A clock that differs by more from what it was, compared with arrival, was set or began again."""
_LATE_LIMIT_US: Final = 5_000_000
"""Frames may be delayed by more than `_JUMP_US` for this long; then it is the clock."""
_LET_GO: Final = 2_000
"""The smallest difference rises by 1/2000 of the time: more than any clock drifts, and too slow for jitter to show."""
_SLEW: Final = 20
"""Corrections are spread: event time runs by 1/20 faster or slower until they are done."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A frame's place. `segment` rises by one when the camera's clock was set or began again."""

    event_time_us: int
    segment: int


class _Tracker:
    """One clock of the camera against arrival, all in us."""

    def __init__(self) -> None:
        self._last_us: int | None = None
        self._arrived_us = 0
        self.offset_us = 0
        """Smallest difference, arrival minus clock, lately."""
        self._late_since_us: int | None = None
        self._least_late_us = 0

    def follow(self, clock_us: int, arrived_us: int) -> bool:
        """Take in one frame; returns whether the clock jumped."""
        difference_us = arrived_us - clock_us
        if self._last_us is None:
            self._begin(clock_us, arrived_us, difference_us)
            return False
        was_us = self._arrived_us - self._last_us
        went_back = clock_us < self._last_us and difference_us - was_us > _JUMP_US
        if went_back or difference_us < self.offset_us - _JUMP_US:
            self._begin(clock_us, arrived_us, difference_us)
            return True
        elapsed_us = max(0, arrived_us - self._arrived_us)
        self._last_us, self._arrived_us = clock_us, arrived_us
        self.offset_us = min(difference_us, self.offset_us + elapsed_us // _LET_GO)
        return self._is_late_for_long(difference_us, arrived_us)

    def _begin(self, clock_us: int, arrived_us: int, difference_us: int) -> None:
        self._last_us, self._arrived_us, self.offset_us = clock_us, arrived_us, difference_us
        self._late_since_us = None

    def _is_late_for_long(self, difference_us: int, arrived_us: int) -> bool:
        """Return whether all frames have been late for so long that the clock is wrong. Then the offset is corrected."""
        if difference_us <= self.offset_us + _JUMP_US:
            self._late_since_us = None
            return False
        if self._late_since_us is None:
            self._late_since_us, self._least_late_us = arrived_us, difference_us
        self._least_late_us = min(self._least_late_us, difference_us)
        if arrived_us - self._late_since_us < _LATE_LIMIT_US:
            return False
        self.offset_us, self._late_since_us = self._least_late_us, None
        return True


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
        self._camera: _Tracker | None = None
        self._segment = 0
        self._basis = ""
        self._correction_us = 0
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
        jumped = self._follow(media_us, camera_us, arrived_us)
        basis, clock_us = self._mapped(media_us, camera_us)
        if is_first or jumped:
            # A new segment begins where its clock says, unless that were in the past: then it follows what there is, and
            # falls back to its clock slowly.
            waited_us = 1 if is_first else max(1, arrived_us - self._arrived_us)
            behind_us = self._last_event_us + waited_us - clock_us
            self._correction_us = min(max(0, behind_us), self._tolerance_us)
        elif basis != self._basis:
            self._correction_us = self._last_event_us + media_us - (self._last_media_us or 0) - clock_us
        else:
            self._correct(arrived_us)
        self._segment += jumped
        self._basis, self._last_media_us, self._arrived_us = basis, media_us, arrived_us
        event_us = clock_us + self._correction_us
        event_us = min(max(event_us, arrived_us - self._tolerance_us), arrived_us + self._tolerance_us)
        if self._last_event_us - arrived_us > 2 * self._tolerance_us:
            # Our own clock was set back. Until it has caught up, frames have half their spacing: else all were one instant.
            event_us = self._last_event_us + min(spacing_us // 2, self._tolerance_us)
        self._last_event_us = max(event_us, self._last_event_us + 1)
        return Placed(self._last_event_us, self._segment)

    def _follow(self, media_us: int, camera_us: int | None, arrived_us: int) -> bool:
        jumped = self._media.follow(media_us, arrived_us)
        if camera_us is None:
            self._camera, self.offset_ms = None, None
            return jumped
        if self._camera is None:
            self._camera = _Tracker()
        jumped = self._camera.follow(camera_us, arrived_us) or jumped
        self.offset_ms = round(-self._camera.offset_us / 1000)
        if jumped:
            self._basis = ""
        return jumped

    def _mapped(self, media_us: int, camera_us: int | None) -> tuple[str, int]:
        """Return which clock is used, and its time of this frame, in us since the Unix epoch."""
        if camera_us is None or self._camera is None:
            return "media", media_us + self._media.offset_us
        # Once it is not believed it has to be clearly right to be believed again, so a clock at the limit does not flicker.
        limit_us = self._tolerance_us // 2 if self._basis == "spacing" else self._tolerance_us
        if abs(self._camera.offset_us) <= limit_us:
            return "camera", camera_us
        return "spacing", camera_us + self._camera.offset_us

    def _correct(self, arrived_us: int) -> None:
        step_us = max(0, arrived_us - self._arrived_us) // _SLEW
        if self._correction_us > 0:
            self._correction_us = max(0, self._correction_us - step_us)
        else:
            self._correction_us = min(0, self._correction_us + step_us)
