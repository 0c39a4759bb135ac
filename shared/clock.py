"""Time as an argument."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time, and waiting."""

    def now_s(self) -> float:
        """Return wall-clock time, seconds since the Unix epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return a time that never goes back, in s, of unknown origin."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
