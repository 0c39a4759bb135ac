"""Clocks that tests hand in; in none of them does time pass by itself."""


class StillClock:
    """Time stands still, also while somebody sleeps."""

    def __init__(self, now_s: float = 0.0, monotonic_s: float = 0.0) -> None:
        self._now_s = now_s
        self._monotonic_s = monotonic_s

    def now_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def sleep(self, seconds: float) -> None:
        """Return at once."""


class SleeplessClock(StillClock):
    """Time stands still, and to sleep is a fault."""

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nothing here may sleep, not even {seconds} s")


class SleepingClock:
    """Time that only a sleep, or the test itself through `time_s`, moves."""

    def __init__(self, time_s: float = 1000.0) -> None:
        self.time_s = time_s

    def now_s(self) -> float:
        return self.time_s

    def monotonic_s(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds
