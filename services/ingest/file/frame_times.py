"""From FFmpeg's time stamps to the times at which a player shows the frames. Pure.

The rules are those of FFmpeg's own player (`vp_duration` in ffplay.c) and of its program's correction of discontinuities
(`ts_discontinuity_process` in ffmpeg_demux.c), made exact: fractions, and one frame of look-ahead instead of a clock.
"""

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

MAX_HOLD_S: Final = Fraction(3600)
"""A longer gap between two frames is damage, not time, as in ffplay."""

MAX_HOLD_DISCONTINUOUS_S: Final = Fraction(10)
"""The same, in containers whose clock may begin again at any time (MPEG-TS, recordings of broadcasts)."""

_REPEATS: Final = 8
"""So many frames with one time stamp share the time of one; where there are more, the stamps tell nothing."""


class Stamp(NamedTuple):
    """A decoded frame's time stamps in ticks as FFmpeg gave them: presentation, decoding, and its length (0: unknown)."""

    pts: int | None
    dts: int | None
    duration: int


Item = TypeVar("Item")


class Shown(NamedTuple, Generic[Item]):
    """A frame, and from when until when it is shown, in s from the content's first instant."""

    item: Item
    from_s: Fraction
    until_s: Fraction


class FrameTimes:
    """Places frames, given in order of presentation, in seconds from the content's first instant. Time never goes back.

    | the stamps | the frame |
    | --- | --- |
    | go on, by no more than `max_hold_s` | is shown when they say; the frame before stays until then |
    | jump forward by more | follows the frame before; what comes after counts from there |
    | go back, and stay back (restart, overlap) | the same |
    | go back or forward for this frame alone | follows the frame before; the others keep their times |
    | repeat | shares the time until the next stamp |
    | are missing | follows the frame before |
    """

    def __init__(
        self, time_base: Fraction, start_s: Fraction | None, rate: Fraction | None, max_hold_s: Fraction = MAX_HOLD_S
    ) -> None:
        """Start before the first frame.

        Args:
            time_base: Length of one tick in s.
            start_s: Time stamp of the content's first instant in s; None: that of the first frame.
            rate: Nominal frame rate, for frames that do not say how long they last.
            max_hold_s: Longest time that one frame may stay.
        """
        self._time_base = time_base
        self._start_s = start_s
        self._nominal_s = 1 / rate if rate else Fraction(0)
        self._max_hold_s = max_hold_s
        self._uses_dts = False
        self._offset_s = Fraction(0)
        self._at_s: Fraction | None = None
        self._stamped_s: Fraction | None = None
        self._repeated = 0
        self._owed_s = Fraction(0)
        self._before_s: Fraction | None = None
        self._last_pts: int | None = None
        self._max_hold_ticks = int(max_hold_s / time_base) if time_base else 0
        self._is_plain = False
        self._duration = 0
        self._length_s = self._nominal_s
        self.end_s = Fraction(0)

    def place(self, stamp: Stamp, following: Stamp | None, second: Callable[[], Stamp | None] = lambda: None) -> Fraction:
        """Return from when on a frame is shown, in s.

        `following` is the frame after it, None for the last; `second` gives the one after that, where it matters.
        """
        if self._is_plain and following is not None and self._goes_on_plainly(stamp.pts, following.pts):
            self._stamped_s = (stamp.pts or 0) * self._time_base
            return self._placed(self._stamped_s + self._offset_s, stamp)
        if self._at_s is None:
            self._uses_dts = stamp.pts is None
        stamped_s = self._seconds(stamp)
        next_s = None if following is None else self._seconds(following)
        after = second()
        second_s = None if after is None else self._seconds(after)
        if self._at_s is None:
            at_s = self._first(stamped_s, next_s, second_s)
        elif stamped_s is None:
            at_s = self.end_s
            self._owed_s += self._length_s
        else:
            at_s = self._next(self._at_s, stamped_s, next_s, second_s)
        self._is_plain = not self._uses_dts and stamped_s is not None and at_s == stamped_s + self._offset_s and not self._owed_s
        self._stamped_s = stamped_s if stamped_s is not None else self._stamped_s
        return self._placed(at_s, stamp)

    def _placed(self, at_s: Fraction, stamp: Stamp) -> Fraction:
        self._before_s, self._at_s, self._last_pts = self._at_s, at_s, stamp.pts
        if stamp.duration != self._duration:
            self._duration = stamp.duration
            length_s = stamp.duration * self._time_base
            self._length_s = length_s if 0 < length_s <= self._max_hold_s else self._nominal_s
        self.end_s = at_s + self._length_s
        return at_s

    def _goes_on_plainly(self, pts: int | None, next_pts: int | None) -> bool:
        """Return whether a frame's stamp is between its neighbours', as almost all are: there is nothing to decide."""
        last = self._last_pts
        if pts is None or next_pts is None or last is None:
            return False
        return last < pts < next_pts and pts - last <= self._max_hold_ticks

    def _seconds(self, stamp: Stamp) -> Fraction | None:
        # Decoding times run behind by the decoder's delay, so they never mix with those of presentation.
        ticks = stamp.dts if self._uses_dts else stamp.pts
        return None if ticks is None else ticks * self._time_base

    def _first(self, stamped_s: Fraction | None, next_s: Fraction | None, second_s: Fraction | None) -> Fraction:
        if stamped_s is None:
            return Fraction(0)
        start_s = stamped_s if self._start_s is None or self._uses_dts else self._start_s
        late_s = stamped_s - start_s
        if next_s is not None and not self._goes_on(stamped_s, next_s) and not self._goes_on(stamped_s, second_s):
            # The first stamp is the odd one: the second tells where it would be.
            late_s = next_s - start_s - self._nominal_s
            late_s = late_s if 0 <= late_s <= self._max_hold_s else Fraction(0)
            self._offset_s = late_s + self._nominal_s - next_s
            return late_s
        late_s = late_s if 0 <= late_s <= self._max_hold_s else Fraction(0)
        self._offset_s = late_s - stamped_s
        return late_s

    def _goes_on(self, before_s: Fraction, after_s: Fraction | None) -> bool:
        return after_s is not None and 0 <= after_s - before_s <= self._max_hold_s

    def _next(  # noqa: PLR0911  # one for each line of the table
        self, at_s: Fraction, stamped_s: Fraction, next_s: Fraction | None, second_s: Fraction | None
    ) -> Fraction:
        wanted_s = stamped_s + self._offset_s
        after_s = None if next_s is None else next_s + self._offset_s
        is_repeated = stamped_s == self._stamped_s
        self._repeated = self._repeated + 1 if is_repeated else 0
        owed_s, self._owed_s = self._owed_s, Fraction(0)
        is_odd = after_s is not None and at_s < after_s < wanted_s and not (second_s is not None and second_s > stamped_s)
        if wanted_s > at_s and not is_odd:
            if wanted_s - at_s <= self._max_hold_s:
                return wanted_s
            return self._restart(stamped_s)
        if after_s is not None and at_s < after_s <= at_s + self._max_hold_s:
            # This frame's stamp alone is odd: it stands between its neighbours.
            return self.end_s if at_s < self.end_s < after_s else (at_s + after_s) / 2
        if is_repeated and next_s is None:
            return at_s + min(self._length_s, at_s - (self._before_s or Fraction(0)))
        if is_repeated:
            shared_s = at_s + (self._length_s / _REPEATS if self._repeated < _REPEATS else self._length_s)
            self._owed_s = shared_s - wanted_s
            return shared_s
        if owed_s > 0 and 0 <= at_s - wanted_s <= owed_s:
            # Frames without a stamp of their own ran ahead of the stamps; these catch up.
            self._owed_s = at_s + self._length_s / _REPEATS - wanted_s
            return at_s + self._length_s / _REPEATS
        return self._restart(stamped_s)

    def _restart(self, stamped_s: Fraction) -> Fraction:
        self._offset_s = self.end_s - stamped_s
        return self.end_s


def shown(frames: Iterator[tuple[Item, Stamp]], times: FrameTimes) -> Iterator[Shown[Item]]:
    """Yield the frames with the times in which they are shown. The last ends at `times.end_s`.

    Reads one frame ahead, and two where an odd stamp shows only by those after it: a picture of 8K has 50 MB.
    """
    ahead: deque[tuple[Item, Stamp]] = deque()

    def later(index: int) -> Stamp | None:
        ahead.extend(islice(frames, max(0, index + 1 - len(ahead))))
        return ahead[index][1] if len(ahead) > index else None

    before: tuple[Item, Fraction] | None = None
    while later(0) is not None:
        item, stamp = ahead.popleft()
        at_s = times.place(stamp, later(0), lambda: later(1))
        if before is not None:
            yield Shown(before[0], before[1], at_s)
        before = item, at_s
    if before is not None:
        yield Shown(before[0], before[1], times.end_s)
