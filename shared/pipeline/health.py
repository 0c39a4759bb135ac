"""Keeps whether a process is alive and at work: its loop reports, and the supervisor that restarts it asks. Thread-safe.

Alive means: the loop has turned within a bound, and no partition stands still beyond a bound. A loop that waits for a store or a
bus that is away says so and counts as turning: a restart would not bring them back. Ready means: alive, and waiting for nobody.
"""

import threading
from collections.abc import Mapping
from typing import Final

from moodline.shared.clock import Clock
from moodline.shared.metrics import Metrics

LOOP_S: Final = 120.0
"""A batch of the slowest model on a busy machine takes some 10 s."""

STANDSTILL_S: Final = 60.0
"""The consumer has replaced its client several times by then."""

Place = tuple[str, int]


class Health:
    """The health of one process.

    Args:
        metrics: Where partitions that stand still are shown.
        clock: Time.
    """

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._turned_s: dict[str, float] = {}
        self._waits: dict[str, str] = {}
        self._standing: dict[str, dict[Place, float]] = {}

    def turned(self, worker: str) -> None:
        """Record that a loop has completed a pass and does not wait for another service."""
        with self._lock:
            self._turned_s[worker] = self._clock.monotonic_s()
            self._waits.pop(worker, None)

    def waits(self, worker: str, reason: str) -> None:
        """Note that a loop turns, but waits for something outside of this process."""
        with self._lock:
            self._turned_s[worker] = self._clock.monotonic_s()
            self._waits[worker] = reason

    def ended(self, worker: str) -> None:
        """Note that a loop has ended as it should: nothing is expected of it any more."""
        self.standing(worker, {})
        with self._lock:
            self._turned_s.pop(worker, None)
            self._waits.pop(worker, None)

    def standing(self, worker: str, places: Mapping[Place, float]) -> None:
        """Note which partitions stand still, and for how long, in s; none when empty."""
        with self._lock:
            before, self._standing[worker] = self._standing.get(worker, {}), dict(places)
        # A series that is always there, so that an alert can tell "nothing stands still" from "nobody says".
        self._metrics.standstill_seconds.labels(worker, "", "").set(0)
        for place in before.keys() - places.keys():
            self._metrics.standstill_seconds.remove(worker, place[0], str(place[1]))
        for (topic, partition), stood_s in places.items():
            self._metrics.standstill_seconds.labels(worker, topic, str(partition)).set(stood_s)

    def problem(self) -> str | None:
        """Say why this process should be started again; None while it should not."""
        with self._lock:
            now_s = self._clock.monotonic_s()
            for worker, turned_s in self._turned_s.items():
                if now_s - turned_s > LOOP_S:
                    return f"the loop of {worker} has not turned for {now_s - turned_s:.0f} s"
            for worker, places in self._standing.items():
                for (topic, partition), stood_s in places.items():
                    if stood_s > STANDSTILL_S:
                        return f"{worker} has not read partition {partition} of {topic} for {stood_s:.0f} s"
        return None

    def waiting(self) -> str | None:
        """Say what this process waits for; None while it waits for nothing."""
        with self._lock:
            return next((f"{worker} waits: {reason}" for worker, reason in self._waits.items()), None)
