"""Estimates the remaining time of a task from its progress. Pure: time is an argument."""

from collections import deque
from typing import Final

_LOOKBACK_S: Final = 20.0
_LEAST_S: Final = 1.0


class Eta:
    """Judges by the speed of the last seconds, so that a pause or a restart does not weigh for long."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def left_s(self, percent: float, now_s: float) -> float | None:
        """Note how far it is, 0 to 100, and return how long the rest takes, in s; None where that cannot be known yet."""
        if self._seen and percent < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now_s, percent))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > _LOOKBACK_S:
            self._seen.popleft()
        since_s, before = self._seen[0]
        if now_s - since_s < _LEAST_S or percent <= before:
            return None
        return (100 - percent) * (now_s - since_s) / (percent - before)
