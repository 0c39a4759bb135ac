"""Clocks that tests hand in; in none of them does time pass by itself."""

import threading
from dataclasses import dataclass

NOW_S = 1_777_636_800.0
"""2026-05-01T12:00:00Z"""


@dataclass
class StubClock:
    """Stands still until told to move; a sleep moves it. Wall and monotonic time are the same."""

    now: float = NOW_S

    def now_s(self) -> float:
        return self.now

    def monotonic_s(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class SteppingClock:
    """Wall time stands still; monotonic time goes on by `step_s` whenever somebody looks. Thread-safe."""

    def __init__(self, now_s: float, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self._now_s = now_s
        self._monotonic_s = 0.0
        self._lock = threading.Lock()

    def now_s(self) -> float:
        return self._now_s

    def monotonic_s(self) -> float:
        with self._lock:
            self._monotonic_s += self.step_s
            return self._monotonic_s

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here may sleep")


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
