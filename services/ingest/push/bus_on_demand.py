"""The bus of a process that needs one only when frames are pushed to it."""

import threading
from collections.abc import Callable
from typing import Final

from moodline.shared.bus import Bus, Producer
from moodline.shared.clock import Clock
from moodline.shared.errors import BusUnavailableError
from moodline.shared.messages import ALL_TOPICS

_REST_S: Final = 5.0


class BusOnDemand:
    """Connects to a bus when a producer is first asked for. Thread-safe."""

    def __init__(self, open_bus: Callable[[], Bus], clock: Clock) -> None:
        """Prepare; `open_bus` may raise `BusUnavailableError`."""
        self._open_bus = open_bus
        self._clock = clock
        self._connecting = threading.Lock()
        self._bus: Bus | None = None
        self._producer: Producer | None = None
        self._failed_s: float | None = None

    def producer(self) -> Producer:
        """Return the producer, the same for all; one caller connects, which may block for half a minute, others are refused.

        Raises:
            BusUnavailableError: the bus cannot be reached, could not be a moment ago, or is being connected to.
        """
        if self._producer is not None:
            return self._producer
        if not self._connecting.acquire(blocking=False):
            raise BusUnavailableError("the bus is being connected to")
        try:
            return self._producer or self._connect()
        finally:
            self._connecting.release()

    def close(self) -> None:
        """Close what was opened."""
        if self._producer is not None:
            self._producer.close()
        if self._bus is not None:
            self._bus.close()

    def _connect(self) -> Producer:
        if self._failed_s is not None and self._clock.monotonic_s() - self._failed_s < _REST_S:
            raise BusUnavailableError("the bus could not be reached a moment ago")
        try:
            self._bus = self._bus or self._open_bus()
            self._bus.ensure_topics(ALL_TOPICS)
            self._producer = self._bus.open_producer()
        except BusUnavailableError:
            self._failed_s = self._clock.monotonic_s()
            raise
        return self._producer
