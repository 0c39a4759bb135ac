"""Lag of a worker in messages and seconds, from what it has seen itself, without a request to the bus.

The lag of a partition in seconds is the age of its oldest record that is not committed yet:

- While a batch is in hand, that is the batch's oldest record of the partition, whose time is known. It stays the oldest until the
  commit, so a store that is away or a stage that hangs shows as a growing lag, at any moment, without the worker's doing.
- Else, when the partition holds more than was committed, the oldest of it is not seen yet. It came after the last committed
  record, and after the moment at which nothing was left: the later of the two is taken, which
  is at most one poll (0.2 s) too much.
- When nothing is left, the lag is 0.

A partition that no record has come from yet counts from what its group has committed there; its seconds count from when that was
first seen. A partition that moves takes its lag along, because its new owner reads from what was committed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from moodline.shared.bus.base import Position, Record
from moodline.shared.clock import Clock
from moodline.shared.messages import StreamClass, stream_class_of
from moodline.shared.metrics import Metrics

POLL_S: Final = 0.2
"""Interval at which a worker reads the ends of its partitions: for a thousand of them it takes 2 ms."""

Place = tuple[str, int]


class Behind(NamedTuple):
    """The lag of one topic's partitions.

    Attributes:
        messages: Records that are not committed, over all owned partitions.
        oldest_ms: When the oldest of them was produced, milliseconds since the Unix epoch; None when there is none.
        partitions: How many partitions are owned.
    """

    messages: int
    oldest_ms: float | None
    partitions: int


@dataclass(slots=True)
class _Partition:
    """`next_offset` is the oldest record not committed; `in_hand_ms` its time while a batch holds it."""

    next_offset: int
    in_hand_ms: int | None
    newest_ms: int
    clear_ms: float


class Lag:
    """Follows one consumer. Used by the thread that polls."""

    def __init__(self) -> None:
        self._partitions: dict[Place, _Partition] = {}

    def took(self, records: Iterable[Record]) -> None:
        """Note what a poll returned."""
        for record in records:
            place = record.position[:2]
            known = self._partitions.get(place)
            if known is None:
                self._partitions[place] = _Partition(record.position.offset, record.timestamp_ms, record.timestamp_ms, 0.0)
                continue
            # Records that come again, after a failure or to heal a hole, are older than what was in hand.
            if known.in_hand_ms is None or record.position.offset < known.next_offset:
                known.next_offset, known.in_hand_ms = record.position.offset, record.timestamp_ms
            known.newest_ms = record.timestamp_ms

    def committed(self, positions: Iterable[Position]) -> None:
        """Note that everything up to these positions, inclusive, is done."""
        for topic, partition, offset in positions:
            known = self._partitions.get((topic, partition))
            if known is not None:
                known.next_offset, known.in_hand_ms = offset + 1, None

    def poll(
        self,
        ends: Mapping[Place, int],
        owned: Iterable[Place],
        topics: Sequence[str],
        now_ms: float,
        committed: Mapping[Place, int] = MappingProxyType({}),
    ) -> dict[str, Behind]:
        """Return how far each topic is behind; partitions that are not owned any more are forgotten.

        Args:
            ends: As `Consumer.ends`.
            owned: As `Consumer.assignment`.
            topics: All topics to answer for.
            now_ms: Milliseconds since the Unix epoch.
            committed: As `Consumer.committed`.
        """
        mine = set(owned)
        for place in mine & committed.keys() - self._partitions.keys():
            self._partitions[place] = _Partition(committed[place], None, 0, now_ms)
        self._partitions = {place: known for place, known in self._partitions.items() if place in mine}
        messages, oldest = dict.fromkeys(topics, 0), dict[str, float]()
        for place, known in self._partitions.items():
            topic = place[0]
            done = min(known.next_offset, committed.get(place, known.next_offset))
            left = max(ends.get(place, 0) - done, known.in_hand_ms is not None)
            if not left:
                known.clear_ms = now_ms
                continue
            since_ms = max(known.newest_ms, known.clear_ms) if known.in_hand_ms is None else known.in_hand_ms
            messages[topic] = messages.get(topic, 0) + left
            oldest[topic] = min(since_ms, oldest.get(topic, since_ms))
        owned_of = [topic for topic, _ in mine]
        return {topic: Behind(messages[topic], oldest.get(topic), owned_of.count(topic)) for topic in topics}


class LagGauges:
    """Shows a worker's lag in its metrics, where it goes on growing between two looks, also while the worker hangs."""

    def __init__(self, worker: str, metrics: Metrics, clock: Clock) -> None:
        self._worker = worker
        self._metrics = metrics
        self._clock = clock
        self._oldest_ms: dict[str, float | None] = {}

    def show(self, behind: Mapping[str, Behind]) -> None:
        """Show how far each topic is behind."""
        for topic, now in behind.items():
            if topic not in self._oldest_ms:
                lane = stream_class_of(topic) or StreamClass.FILE
                self._metrics.lag_seconds.labels(self._worker, lane).set_function(partial(self._age_s, topic))
            self._oldest_ms[topic] = now.oldest_ms
            self._metrics.lag_messages.labels(self._worker, stream_class_of(topic) or StreamClass.FILE).set(now.messages)
            self._metrics.partitions.labels(self._worker, topic).set(now.partitions)

    def show_in_hand(self, records: Iterable[Record]) -> None:
        """Show what a batch makes older, without a whole look: a worker may hang in this very batch."""
        for record in records:
            topic = record.position.topic
            if topic in self._oldest_ms:
                self._oldest_ms[topic] = min(record.timestamp_ms, self._oldest_ms[topic] or record.timestamp_ms)

    def _age_s(self, topic: str) -> float:
        oldest_ms = self._oldest_ms.get(topic)
        return 0.0 if oldest_ms is None else max(0.0, self._clock.now_s() - oldest_ms / 1000)
