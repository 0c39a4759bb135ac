"""The pause before a camera is tried again: exponential, with jitter, without an end."""

import random
from collections.abc import Callable
from typing import Final

_PROVEN_S: Final = 5.0


class BackOff:
    """Pauses between attempts. They double from `least_s` to `most_s`; each is spread over its upper half.

    Without the spread, the cameras of a switch that comes back would all knock at the same moment. Half of the pause stays
    certain, so a camera that fails at once is never hammered. ("Equal jitter" of exponential back-off.)
    """

    def __init__(self, least_s: float, most_s: float, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self.attempts = 0
        """Attempts since frames last came for a while."""
        self._least_s = least_s
        self._most_s = max(least_s, most_s)
        self._uniform = uniform
        self._pause_s = least_s

    def next_s(self) -> float:
        """Count a failed attempt; return the pause before the next, in s."""
        self.attempts += 1
        # The exponent is bounded, so that years of failures overflow nothing.
        self._pause_s = min(self._most_s, self._least_s * 2 ** min(self.attempts - 1, 30))
        return self._uniform(max(self._least_s, self._pause_s / 2), self._pause_s)

    def was_live_for(self, seconds: float) -> None:
        """Begin with short pauses again, if the connection lasted longer than it takes to come by a new one."""
        if seconds >= max(_PROVEN_S, self._pause_s):
            self.attempts = 0
            self._pause_s = self._least_s
