"""How many partitions the topic has by which streams are shared among ingest workers: asked for again and again.

Partitions may be added while workers run. Workers that reckon with different numbers would read some streams twice and some not
at all.
"""

import logging
from collections.abc import Callable
from typing import Final

from moodline.shared.bus.background import BackgroundTask
from moodline.shared.clock import Clock
from moodline.shared.errors import BusError

log = logging.getLogger("moodline.ingest")

_ASK_S: Final = 10.0


class PartitionCount:
    """The number, as of some seconds ago.

    Attributes:
        value: The number of partitions.
    """

    def __init__(self, value: int, ask: Callable[[], int] | None, clock: Clock) -> None:
        """Prepare.

        Args:
            value: The number as of now.
            ask: Asks the bus, and may take its time. Without it the number never changes.
            clock: Time.
        """
        self.value = value
        self._ask = ask
        self._clock = clock
        self._question: BackgroundTask[int] | None = None
        self._due_s = clock.monotonic_s() + _ASK_S

    def poll(self) -> bool:
        """Say whether the number has changed since the last call. Never waits for the bus."""
        if self._question is not None and self._question.done:
            question, self._question = self._question, None
            return self._take(question)
        now_s = self._clock.monotonic_s()
        if self._ask is not None and self._question is None and now_s >= self._due_s:
            self._due_s = now_s + _ASK_S
            self._question = BackgroundTask(self._ask, "partition-count")
        return False

    def _take(self, question: BackgroundTask[int]) -> bool:
        try:
            value = question.result()
        except BusError as error:
            log.info("partitions.unknown", extra={"reason": str(error)})
            return False
        if value == self.value:
            return False
        log.warning("partitions.changed", extra={"former_count": self.value, "count": value})
        self.value = value
        return True
