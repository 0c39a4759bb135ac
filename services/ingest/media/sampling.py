"""Selects the frames to analyse: the first in each slot of 1/sample_fps s of media time. Exact fractions, so nothing drifts."""

from fractions import Fraction
from typing import Final, NamedTuple

from moodline.shared.streams import parse_sample_fps

HOLD_S: Final = Fraction(1, 2)
"""A frame that is shown for longer is a picture that stays; it counts in every slot in which it is shown."""

_ALL_FPS: Final = (5, 60)
"""Least and greatest rate at which a picture that stays is counted where all frames are sampled."""


class Sampled(NamedTuple):
    """One sampled frame of a finite content.

    Attributes:
        at_s: Its place in media time: when it is shown first, or the begin of the first slot that it fills.
        repeats: How often more it is counted.
        last_s: The place of its last repeat; `at_s` without any.
    """

    at_s: Fraction
    repeats: int
    last_s: Fraction


class Sampler:
    """Chooses frames, given in order of presentation. Pure: the choice depends on the time stamps alone."""

    def __init__(self, sample_fps: str) -> None:
        """Start before the first frame.

        Args:
            sample_fps: Frames per second as in `StreamSpec.sample_fps`, or "all".

        Raises:
            InvalidStreamError: for field `sample_fps`.
        """
        self._rate = parse_sample_fps(sample_fps)
        self._slot = -1

    def take(self, pts_s: Fraction) -> bool:
        """Return whether the frame at `pts_s` (s, not negative, never decreasing) is sampled."""
        if self._rate is None:
            return True
        slot = (pts_s.numerator * self._rate.numerator) // (pts_s.denominator * self._rate.denominator)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True

    def choose(self, pts_s: Fraction, until_s: Fraction | None, nominal_fps: Fraction | None = None) -> Sampled | None:
        """Return how the frame that is shown from `pts_s` to `until_s` (None: unknown) counts; None: not at all.

        Args:
            pts_s: As in `take`.
            until_s: When the next frame takes its place.
            nominal_fps: The content's frame rate: how often a picture that stays counts where all frames are sampled.
        """
        if until_s is None or until_s - pts_s <= HOLD_S:
            return Sampled(pts_s, 0, pts_s) if self.take(pts_s) else None
        rate = self._rate
        if rate is None:
            least, most = _ALL_FPS
            rate = min(max(nominal_fps or Fraction(least), Fraction(least)), Fraction(most))
            first = pts_s.numerator * rate.numerator // (pts_s.denominator * rate.denominator)
        else:
            first = max(pts_s.numerator * rate.numerator // (pts_s.denominator * rate.denominator), self._slot + 1)
        # The last slot that begins while the frame is shown.
        last = -(-until_s.numerator * rate.numerator // (until_s.denominator * rate.denominator)) - 1
        at_s = max(pts_s, first / rate)
        if at_s >= until_s:
            return None
        last = max(first, last)
        if self._rate is not None:
            self._slot = last
        return Sampled(at_s, last - first, max(at_s, last / rate))

    def next_s(self) -> Fraction | None:
        """Return from which time on a frame would be sampled next, in s; None where every frame is, or before the first."""
        return None if self._rate is None or self._slot < 0 else (self._slot + 1) / self._rate
