"""Token buckets: how often somebody may ask."""

from collections import OrderedDict
from typing import Final

from moodline.shared.clock import Clock

_MOST_BUCKETS: Final = 10_000
"""Of more callers, those that asked the longest time ago are forgotten; they begin again with a full bucket."""


class Buckets:
    """One bucket per caller: it holds `burst` tokens and gains `rate_per_s` every second. Used from the event loop alone."""

    def __init__(self, rate_per_s: float, burst: int, clock: Clock) -> None:
        """Prepare; a rate of 0 means no limit."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Take a token of a caller; return 0, or, where there is none, in how many s there will be one."""
        wait_s = self.wait_s(name)
        if wait_s == 0 and self._rate_per_s > 0:
            tokens, now_s = self._tokens(name)
            self._buckets[name] = (tokens - 1, now_s)
            self._buckets.move_to_end(name)
            if len(self._buckets) > _MOST_BUCKETS:
                self._buckets.popitem(last=False)
        return wait_s

    def wait_s(self, name: str) -> float:
        """Return in how many s a token can be taken; 0 for now."""
        if self._rate_per_s <= 0:
            return 0.0
        tokens, _ = self._tokens(name)
        return 0.0 if tokens >= 1 else (1 - tokens) / self._rate_per_s

    def _tokens(self, name: str) -> tuple[float, float]:
        now_s = self._clock.monotonic_s()
        tokens, at_s = self._buckets.get(name, (float(self._burst), now_s))
        return min(float(self._burst), tokens + (now_s - at_s) * self._rate_per_s), now_s
