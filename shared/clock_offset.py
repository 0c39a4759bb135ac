"""Measures how far this machine's clock is from that of the store's host, which all processes can ask; tells time by that clock.

Whoever compares times of two hosts, as age budgets do, must not depend on whether their clocks agree. So a process measures the
offset of its clock to the store's (as NTP does: the answer was given half-way between question and receipt; of several questions
the quickest counts) and tells the time without it.
"""

import logging
import socket
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from moodline.shared.clock import Clock
from moodline.shared.errors import StoreError
from moodline.shared.metrics import Metrics

log = logging.getLogger("moodline.clock")

SKEW_S: Final = 0.5
"""An offset beyond this is reported: it is far more than what NTP leaves."""

DEAD_BAND_S: Final = 0.1
"""A smaller offset is not corrected: clocks that are kept by NTP agree better than they can be measured through a busy store."""

_QUESTIONS: Final = 5
_UNCERTAIN_S: Final = 0.25
_EVERY_S: Final = 15.0


class Offset(NamedTuple):
    """A measured offset: by how much this machine's clock is ahead, in s, and how far off that may be, in s."""

    ahead_s: float
    uncertain_s: float


class ReferenceClock:
    """The machine's clock, less the offset that was measured last. Thread-safe.

    Attributes:
        offset_s: What is taken off, in s; 0 until something was measured, and within the dead band.
    """

    def __init__(self, machine: Clock) -> None:
        self.offset_s = 0.0
        self._machine = machine

    def now_s(self) -> float:
        return self._machine.now_s() - self.offset_s

    def monotonic_s(self) -> float:
        return self._machine.monotonic_s()

    def sleep(self, seconds: float) -> None:
        self._machine.sleep(seconds)


def offset_of(clock: Clock) -> float:
    """Return how far the machine's clock is ahead of this one, in s."""
    return clock.offset_s if isinstance(clock, ReferenceClock) else 0.0


def measure_offset(store_time: Callable[[], float | None], machine: Clock) -> Offset | None:
    """Ask the store for its time, a few times; None where it has the machine's own clock. Raises `StoreUnavailableError`."""
    best: Offset | None = None
    for _ in range(_QUESTIONS):
        asked_s, begun_s = machine.now_s(), machine.monotonic_s()
        store_s = store_time()
        if store_s is None:
            return None
        took_s = machine.monotonic_s() - begun_s
        found = Offset(asked_s + took_s / 2 - store_s, took_s / 2)
        if best is None or found.uncertain_s < best.uncertain_s:
            best = found
    return best


class ClockWatch:
    """Measures the offset every 15 s, in a thread of its own, shows it, and sets the process's clock by it."""

    def __init__(self, store_time: Callable[[], float | None], machine: Clock, metrics: Metrics, host: str = "") -> None:
        """Prepare.

        Args:
            store_time: `Store.time_s`.
            machine: The clock that is measured.
            metrics: Where the offset is shown.
            host: Name of this machine in logs; asked from the operating system unless given.
        """
        self.clock: Final = ReferenceClock(machine)
        self._store_time = store_time
        self._machine = machine
        self._metrics = metrics
        self._host = host or socket.gethostname()
        self._is_skewed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock-watch", daemon=True)

    def start(self) -> None:
        """Measure once, before anything depends on it, and go on in the thread."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def poll(self) -> None:
        """Measure once. What is too uncertain, or cannot be measured because the store is away, changes nothing."""
        try:
            found = measure_offset(self._store_time, self._machine)
        except StoreError:
            return
        if found is None or found.uncertain_s > _UNCERTAIN_S:
            return
        self._metrics.clock_offset_seconds.set(found.ahead_s)
        self.clock.offset_s = found.ahead_s if abs(found.ahead_s) > DEAD_BAND_S else 0.0
        self._set_state(found)

    def _set_state(self, found: Offset) -> None:
        is_skewed = abs(found.ahead_s) > SKEW_S
        if is_skewed and not self._is_skewed:
            way_out = "set the clocks of both hosts by NTP; ages are corrected by the offset meanwhile"
            log.warning("clock.skewed", extra={"host": self._host, "ahead_s": round(found.ahead_s, 3), "detail": way_out})
        elif self._is_skewed and not is_skewed:
            log.info("clock.right", extra={"host": self._host, "ahead_s": round(found.ahead_s, 3)})
        self._is_skewed = is_skewed

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.poll()
