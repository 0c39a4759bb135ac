"""Selects the frames to analyse: the first in each slot of 1/sample_fps s of media time. Exact fractions, so nothing drifts."""

from fractions import Fraction

from moodline.shared.streams import parse_sample_fps


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

    def next_s(self) -> Fraction | None:
        """Return from which time on a frame would be sampled next, in s; None where every frame is, or before the first."""
        return None if self._rate is None or self._slot < 0 else (self._slot + 1) / self._rate
