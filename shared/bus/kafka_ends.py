"""Asks where partitions begin and end, by a separate client, so that the answer does not depend on the client that reads."""

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import OffsetSpec

from moodline.shared.bus.kafka_observer import Observer, bound_of

ASK_S: Final = 3.0
_GIVE_UP_S: Final = 15.0
FRESH_S: Final = 4 * ASK_S
"""An answer is valid for this time. After it, the brokers count as unavailable, and no partition is judged."""


class KafkaEnds:
    """Asks for the bounds of one topic's partitions, every few seconds, without ever waiting for the answer."""

    def __init__(self, observer: Observer, topic: str) -> None:
        self._observer = observer
        self._topic = topic
        self._asked_s = float("-inf")
        self._earliest: Mapping[int, Future[Any]] = {}
        self._latest: Mapping[int, Future[Any]] = {}
        self._starts: dict[int, int] = {}
        self._ends: dict[int, tuple[int, float]] = {}

    def refresh(self, partitions: Collection[int], now_s: float) -> None:
        """Take in answers that have come, and ask again when that is due."""
        waiting = any(not future.done() for futures in (self._earliest, self._latest) for future in futures.values())
        if waiting and now_s - self._asked_s < _GIVE_UP_S:
            return
        for partition, future in self._earliest.items():
            if (offset := bound_of(future)) is not None:
                self._starts[partition] = offset
        for partition, future in self._latest.items():
            if (offset := bound_of(future)) is not None:
                self._ends[partition] = (offset, self._asked_s)
        self._earliest, self._latest = {}, {}
        if partitions and now_s - self._asked_s >= ASK_S:
            self._asked_s = now_s
            try:
                self._earliest = self._observer.bounds(self._topic, partitions, OffsetSpec.earliest())
                self._latest = self._observer.bounds(self._topic, partitions, OffsetSpec.latest())
            except KafkaException:
                self._earliest, self._latest = {}, {}

    def soon(self) -> None:
        """Ask at the next `refresh`: partitions have come."""
        if not self._latest:
            self._asked_s = float("-inf")

    def start(self, partition: int) -> int:
        """Return the offset of the oldest record that is kept, as far as known; else 0."""
        return self._starts.get(partition, 0)

    def known(self) -> dict[int, int]:
        """Return the newest ends that were answered, however old."""
        return {partition: end for partition, (end, _) in self._ends.items()}

    def fresh(self, now_s: float) -> dict[int, int]:
        """Return the ends that were answered lately."""
        return {partition: end for partition, (end, asked_s) in self._ends.items() if now_s - asked_s <= FRESH_S}
