"""Finds partitions that stand still although there is something to read. Pure: the time is an argument.

A client may own a partition and never fetch from it again, without an error and without a log line. What shows it is evidence
from elsewhere: another client says that the partition's end is beyond what was read, and says so lately, so its broker answers.

Time counts only while the consumer could have got a record. Two clocks run for each partition that is not at its end:

- `hungry`: the consumer asked and got nothing at all. Nothing explains that but a client that does not fetch.
- `served`: it got records of other partitions. Those may rightly come first while there is a backlog, so the bound is far longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HUNGRY_S: Final = 8.0
SERVED_S: Final = 300.0

_LONGEST_STEP_S: Final = 1.0
"""A longer time between two looks counts as this: the consumer was busy with something else."""


@dataclass(slots=True)
class _Clock:
    position: int | None
    since_s: float
    hungry_s: float = 0.0
    served_s: float = 0.0


class StandstillWatch:
    """Follows the partitions of one topic."""

    def __init__(self, hungry_s: float = HUNGRY_S, served_s: float = SERVED_S) -> None:
        self._hungry_s = hungry_s
        self._served_s = served_s
        self._clocks: dict[int, _Clock] = {}
        self._stood_since_s: dict[int, float] = {}
        self._polled_s: float | None = None

    def poll(self, now_s: float, positions: Mapping[int, int | None], ends: Mapping[int, int], *, drained: bool) -> set[int]:
        """Return the partitions that have stood still for too long since they were last returned.

        Args:
            now_s: Monotonic time.
            positions: For each owned partition the offset of the next record; None while it is not known where to begin.
            ends: The ends of those partitions that were asked for lately, and answered.
            drained: Whether the consumer got less than it asked for since the last poll.
        """
        step_s = 0.0 if self._polled_s is None else min(_LONGEST_STEP_S, now_s - self._polled_s)
        self._polled_s = now_s
        self._clocks = {partition: clock for partition, clock in self._clocks.items() if partition in positions}
        stalled = set()
        for partition, position in positions.items():
            clock = self._clocks.get(partition)
            at_end = position is not None and partition in ends and position >= ends[partition]
            if clock is None or position != clock.position or at_end:
                if at_end or (clock is not None and position != clock.position):
                    self._stood_since_s.pop(partition, None)
                self._clocks[partition] = _Clock(position, now_s)
                continue
            if partition not in ends:
                continue
            if drained:
                clock.hungry_s += step_s
            else:
                clock.served_s += step_s
            if clock.hungry_s >= self._hungry_s or clock.served_s >= self._served_s:
                self._stood_since_s.setdefault(partition, clock.since_s)
                self._clocks[partition] = _Clock(position, now_s)
                stalled.add(partition)
        return stalled

    def forget(self, partitions: set[int]) -> None:
        """Forget partitions that are another's now."""
        for partition in partitions:
            self._clocks.pop(partition, None)
            self._stood_since_s.pop(partition, None)

    def reopened(self) -> None:
        """Begin all clocks again; what stood still goes on standing still until it moves."""
        self._clocks.clear()
        self._polled_s = None

    def standing(self, now_s: float) -> dict[int, float]:
        """Return for how long partitions have stood still, in s; only those beyond the bound, until they move."""
        return {partition: now_s - since_s for partition, since_s in self._stood_since_s.items()}
