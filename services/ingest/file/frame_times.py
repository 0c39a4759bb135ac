"""From FFmpeg's time stamps to exact media time that never goes back. Pure."""

from fractions import Fraction
from typing import Final

LIMIT_S: Final = Fraction(366 * 86_400)
"""A time stamp further from the start than this is damage, not time."""


class FrameTimes:
    """Places frames, given in order of presentation, in seconds from the file's first instant.

    - A frame's own presentation time stamp counts. Without one it is the decoder's (which one decoder thread gives in order
      of presentation), and without either the end of the frame before.
    - A time stamp before that of the frame before takes that one's place: two frames at one time, never a step back.
    """

    def __init__(self, time_base: Fraction, start_s: Fraction | None, rate: Fraction | None) -> None:
        """Start before the first frame.

        Args:
            time_base: Length of one tick in s.
            start_s: Time stamp of the file's first instant in s; None: that of the first frame.
            rate: Nominal frame rate, for frames that do not say how long they last.
        """
        self._time_base = time_base
        self._start_s = start_s
        self._nominal_s = 1 / rate if rate else Fraction(0)
        self._at_s: Fraction | None = None
        self.end_s = Fraction(0)

    def place(self, pts: int | None, dts: int | None, duration: int) -> Fraction:
        """Return the exact time of the next frame in s; arguments are in ticks, as FFmpeg gave them."""
        ticks = dts if pts is None else pts
        at_s = self.end_s
        if ticks is not None:
            # Decoders' time stamps run behind by the decoder's delay, so what they begin with is the start.
            if self._start_s is None or (self._at_s is None and pts is None):
                self._start_s = ticks * self._time_base
            stamped_s = ticks * self._time_base - self._start_s
            at_s = stamped_s if abs(stamped_s) <= LIMIT_S else self.end_s
        at_s = max(at_s, self._at_s or Fraction(0))
        length_s = duration * self._time_base if duration > 0 else self._nominal_s
        self._at_s = at_s
        self.end_s = at_s + min(length_s, LIMIT_S)
        return at_s
