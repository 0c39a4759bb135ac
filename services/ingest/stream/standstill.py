"""At which step of the pipeline the frames of a stream wait."""

import logging
from collections.abc import Callable
from typing import Final

from moodline.shared.bus import partition_for
from moodline.shared.clock import Clock
from moodline.shared.errors import BusError
from moodline.shared.messages import PipelineStep, StreamClass, topic

log = logging.getLogger("moodline.ingest")

STANDSTILL_S: Final = 10.0
"""A timeline that stands still this long, although frames of its stream were sent, is said to be `stalled`."""

_STEPS: Final = ((PipelineStep.FRAMES, "detector"), (PipelineStep.FACES, "classifier"), (PipelineStep.EMOTIONS, "aggregator"))
_KEPT_S: Final = 5.0

Uncommitted = Callable[[str, str, int], int]
"""How many records of `(topic, partition)` a group has not committed: `Bus.uncommitted`."""


class WaitingPlace:
    """Asks the bus, about every 5 s for each stream class and partition, which worker has most left to do. Thread-safe.

    Attributes:
        partitions: How many partitions the topics have.
    """

    def __init__(self, uncommitted: Uncommitted | None, clock: Clock, partitions: int) -> None:
        self._uncommitted = uncommitted
        self._clock = clock
        self.partitions = partitions
        self._known: dict[tuple[StreamClass, int], tuple[float, str]] = {}

    def sentence(self, stream_id: str, lane: StreamClass, still_s: float) -> str:
        """Return what to tell the user of a stream whose timeline has stood still for so long."""
        worker = self._worker_of(lane, partition_for(stream_id.encode(), self.partitions))
        return standstill_sentence(still_s, worker)

    def _worker_of(self, lane: StreamClass, partition: int) -> str:
        now_s = self._clock.monotonic_s()
        until_s, worker = self._known.get((lane, partition), (float("-inf"), ""))
        if now_s >= until_s:
            worker = self._ask(lane, partition)
            self._known[lane, partition] = now_s + _KEPT_S, worker
        return worker

    def _ask(self, lane: StreamClass, partition: int) -> str:
        if self._uncommitted is None:
            return ""
        try:
            left = {name: self._uncommitted(f"moodline.{name}", topic(step, lane), partition) for step, name in _STEPS}
        except BusError as error:
            log.warning("standstill.unknown", extra={"reason": str(error)})
            return ""
        most = max(left, key=left.__getitem__)
        return most if left[most] else ""


def standstill_sentence(still_s: float, worker: str = "") -> str:
    """Return what to tell the user; `worker` is who has the frames to handle, empty where that is unknown."""
    sentence = f"frames were sent, but for {still_s:.0f} s none has reached the timeline"
    if not worker:
        return f"{sentence}; see whether all workers run"
    return f"{sentence}: they wait for the {worker}; see whether it runs and what its log says"
